# SPDX-License-Identifier: GPL-3.0-or-later
"""The zip that users get, installed by Blender itself in a profile of its own, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path


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
