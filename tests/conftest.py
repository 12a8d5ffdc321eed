# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test can use, and how a run reports what it left out."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
LEFT_OUT = pytest.StashKey[list[str]]()

# An environment has Blender or the backend's packages; scripts/test.py runs each with its own tests.
IN_BLENDER = importlib.util.find_spec("bpy") is not None
collect_ignore = (
    [str(path) for path in Path(__file__).parent.iterdir() if path.name not in ("blender", "conftest.py")]
    if IN_BLENDER
    else ["blender"]
)

# A busy machine is slow, not wrong; a failure prints the lines that reproduce it.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real portraits, clips and templates that lies beside a developer's checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real material is absent: there is no ../shared/data beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def astronaut() -> Path:
    """The photograph that scikit-image ships: 512 x 512, one frontal face (NASA, public domain)."""
    package = importlib.util.find_spec("skimage")  # found, never imported: its own needs are not installed
    if package is None or package.origin is None:
        pytest.skip("the astronaut picture is absent: scikit-image is not installed")
    return Path(package.origin).parent / "data" / "astronaut.png"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out the tests marked slow, and say which")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []
    # A run in a shell's background ignores Ctrl-C, and every process started here would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--fast"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.stash[LEFT_OUT] = [item.nodeid for item in slow]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash[LEFT_OUT]:
        terminalreporter.section(f"left out by --fast: {len(left_out)} slow tests")
        for name in left_out:
            terminalreporter.line(name)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which every test was skipped proves nothing, so it does not count as a success."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus != pytest.ExitCode.OK or reporter is None or session.config.option.collectonly:
        return
    if not any(reporter.stats.get(outcome) for outcome in ("passed", "xfailed")):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
