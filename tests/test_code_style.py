# SPDX-License-Identifier: GPL-3.0-or-later
"""ruff and mypy, with the settings in pyproject.toml, as part of every test run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.environment import ROOT


def check(*command: str) -> None:
    """Runs a tool over the project; fails with what it says."""
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        pytest.fail(result.stdout + result.stderr, pytrace=False)


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", "--quiet", "--output-format", "concise")


def test_mypy_finds_nothing() -> None:
    check("mypy", "--no-error-summary")
