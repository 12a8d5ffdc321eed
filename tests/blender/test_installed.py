# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip that users get, installed by Blender itself in a profile of its own, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file by name; what Python writes while it imports is its own business."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_blender_unpacks_it_whole_and_enables_it(installed) -> None:
    with zipfile.ZipFile(installed.zip) as packed:
        inside = {name: packed.read(name) for name in packed.namelist()}
    unpacked = files_below(installed.folder)
    assert {name: unpacked[name] for name in inside if not name.startswith("wheels/")} == {
        name: data for name, data in inside.items() if not name.startswith("wheels/")
    }
    answer = json.loads(installed.run("""
import json
import importlib
paths = importlib.import_module(".paths", addon.__name__)
print(json.dumps({
    "name": addon.__name__,
    "pointer": hasattr(bpy.types.Object, "liveportrait"),
    "code": str(paths.backend_code()),
    "checkout": paths.is_checkout(),
    "user": str(paths.user_folder("here")),
}))
""").splitlines()[-1])
    assert answer["name"] == "bl_ext.user_default.liveportrait_blender"
    assert answer["pointer"] is True
    assert Path(answer["code"]) == installed.folder and answer["checkout"] is False
    user = Path(answer["user"])
    assert user.is_dir() and user.is_relative_to(installed.profile)
    assert not user.is_relative_to(installed.folder)  # an update of the extension would take it along


def test_the_same_sources_make_the_same_zip(extension_zip: Path, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "build_extension.py"
    command = [sys.executable, str(script), "--output", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    again = tmp_path / extension_zip.name
    assert again.read_bytes() == extension_zip.read_bytes()
    digest = hashlib.sha256(again.read_bytes()).hexdigest()
    assert str(again) in said and f"{again.stat().st_size:,}" in said and digest in said


def test_the_client_comes_out_of_the_wheel(installed) -> None:
    said = installed.run("""
import websockets, websockets.sync.client, websockets.version
print(websockets.__file__)
print(websockets.version.version)
""").splitlines()
    assert Path(said[-2]).is_relative_to(installed.profile / "extensions" / ".local")
    assert said[-1] == "17.4"


def test_nothing_is_written_where_it_is_installed(installed) -> None:
    before = files_below(installed.folder)
    installed.run("""
addon_utils.disable(addon.__name__, default_set=True)
addon = addon_utils.enable(addon.__name__, default_set=True)
assert addon is not None
""")
    assert files_below(installed.folder) == before


def test_on_off_on_and_gone(installed) -> None:
    said = installed.run("""
import json
def there():
    classes = [name for name in dir(bpy.types) if name.startswith("LIVEPORTRAIT_")]
    return [hasattr(bpy.types.Object, "liveportrait"), bool(classes)]
states = [there()]
addon_utils.disable(addon.__name__, default_set=True)
states.append(there())
addon = addon_utils.enable(addon.__name__, default_set=True)
states.append(there())
index = [repo.module for repo in bpy.context.preferences.extensions.repos].index("user_default")
bpy.ops.extensions.package_uninstall(repo_index=index, pkg_id="liveportrait_blender")
states.append(there())
print(json.dumps(states))
""")
    on, off, again, gone = json.loads(said.splitlines()[-1])
    assert on[0] and again == on
    assert off == gone == [False, False]
    assert not installed.folder.exists()
    assert list((installed.profile / "extensions").rglob("websockets*")) == []


ANIMATE = """
import json
from pathlib import Path

import pytest
preferences = bpy.context.preferences.addons[addon.__name__].preferences
preferences.backend, preferences.python_path = "PYTHON", sys.argv[1]
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[3])
options = json.dumps({"frames": [0, 8]})
done = bpy.ops.liveportrait.animate(source=sys.argv[2], driving="smile", options=options, start_frame=1)
plane = bpy.context.view_layer.objects.active
image = plane.active_material.node_tree.nodes.active.image
runtime = sys.modules[addon.__name__ + ".runtime"]
bpy.ops.wm.save_mainfile()
print(json.dumps({
    "done": list(done),
    "shape": list(plane.dimensions),
    "frames": image.liveportrait.frames,
    "relative": image.filepath,
    "folder": str(Path(bpy.path.abspath(image.filepath)).parent),
    "state": runtime.session.state.kind,
    "log": str(runtime.session.state.log),
}))
"""


def test_a_portrait_is_animated_out_of_the_zip(
    installed, backend_python: Path, astronaut: Path, tmp_path: Path
) -> None:
    before = files_below(installed.folder)
    blend = tmp_path / "scenes" / "Großmutter.blend"
    blend.parent.mkdir()
    said = installed.run(ANIMATE, backend_python, astronaut, blend)
    answer = json.loads(next(line for line in said.splitlines() if line.startswith('{"done"')))
    assert answer["done"] == ["FINISHED"] and answer["state"] == "ready"
    assert answer["shape"][0] == pytest.approx(1.0) and answer["shape"][2] == pytest.approx(1.0)
    folder = Path(answer["folder"])
    assert folder.is_relative_to(blend.parent) and answer["relative"].startswith("//")
    frames = sorted(folder.glob("*.png"))
    assert len(frames) == answer["frames"] == 7  # 8 of the library's 30 a second, 24 in this scene
    assert [path.name for path in frames] == [f"{index:06d}.png" for index in range(7)]
    assert len({path.read_bytes() for path in frames}) > 4, "the portrait does not move"
    # The backend ran from a copy, said so where it may, and is gone with Blender.
    assert files_below(installed.folder) == before
    log = Path(answer["log"])
    assert log.is_relative_to(installed.profile) and not log.is_relative_to(installed.folder)
    assert backends_of(installed.profile) == []


def backends_of(profile: Path) -> list[str]:
    """The processes that still run with something of a profile in their command line or as their folder."""
    if not Path("/proc").is_dir():
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = str((process / "cwd").readlink())
        except OSError:  # it has ended, or is somebody else's
            continue
        if str(profile) in f"{command} {where}":
            found.append(command)
    return found
