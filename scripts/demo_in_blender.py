# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's part inside Blender: installs the extension, animates a portrait on to a plane, renders it.

scripts/demo.py runs this with the Python of a bpy wheel and a profile of its own in BLENDER_USER_RESOURCES:

    python demo_in_blender.py EXTENSION.zip BACKEND_PYTHON SOURCE DRIVING FOLDER

The last line is JSON: {"frames": folder of the pictures that came, "count", "renders": [...], "blend"}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import bpy

# isort: split
import addon_utils  # where it lies is known once bpy is there

EXTENSION = "bl_ext.user_default.liveportrait_blender"
NAME = "Demo"
RENDERED = 512  # pixels across


def install(extension: Path, backend_python: Path) -> None:
    """Installs and enables the zip as Preferences does, and points it to an environment that is there."""
    bpy.ops.extensions.package_install_files(
        filepath=str(extension), repo="user_default", enable_on_install=True
    )
    if not addon_utils.check(EXTENSION)[1]:
        raise RuntimeError(f"Blender did not enable {extension.name}")
    preferences = bpy.context.preferences.addons[EXTENSION].preferences
    preferences.backend = "PYTHON"
    preferences.python_path = str(backend_python)


def animate(source: str, driving: str, blend: Path) -> Any:
    """Lets the extension animate the source in a new file; gives the plane that shows it."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.context.preferences.filepaths.save_version = 0  # no demo.blend1
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))  # the frames go beside the file
    done = bpy.ops.liveportrait.animate(source=source, driving=driving, name=NAME, start_frame=1)
    if done != {"FINISHED"}:
        raise RuntimeError("the extension did not animate the portrait")
    return bpy.context.view_layer.objects.active


def look_at(plane: Any, scene: Any) -> None:
    """A camera that sees exactly the plane, and colours as they are in the pictures."""
    data = bpy.data.cameras.new("Camera")
    data.type = "ORTHO"
    data.ortho_scale = max(plane.dimensions.x, plane.dimensions.z)
    camera = bpy.data.objects.new("Camera", data)
    scene.collection.objects.link(camera)
    camera.location = plane.location
    camera.location.y -= 3.0
    camera.rotation_euler = (1.5707963267948966, 0.0, 0.0)
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 4
    scene.cycles.use_denoising = False
    scale = RENDERED / data.ortho_scale
    scene.render.resolution_x = round(plane.dimensions.x * scale)
    scene.render.resolution_y = round(plane.dimensions.z * scale)
    scene.render.resolution_percentage = 100
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"


def render(scene: Any, frames: list[int], folder: Path) -> list[Path]:
    """Renders single frames of the scene to files."""
    made = []
    for frame in frames:
        scene.frame_set(frame)
        path = folder / f"render_{frame:04d}.png"
        scene.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)
        made.append(path)
    return made


def main(extension: str, python: str, source: str, driving: str, folder: str) -> dict[str, object]:
    output = Path(folder)
    blend = output / "demo.blend"
    install(Path(extension), Path(python))
    plane = animate(source, driving, blend)
    scene = bpy.context.scene
    image = plane.active_material.node_tree.nodes.active.image
    count = image.liveportrait.frames
    scene.frame_start, scene.frame_end = 1, count
    look_at(plane, scene)
    renders = render(scene, [1 + count * part // 4 for part in (1, 2, 3)], output)
    scene.render.filepath = "//render_"
    scene.frame_set(1)
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    frames = Path(bpy.path.abspath(image.filepath)).parent
    addon_utils.disable(EXTENSION)  # ends the backend
    return {
        "frames": str(frames),
        "count": count,
        "renders": [str(path) for path in renders],
        "blend": str(blend),
    }


if __name__ == "__main__":
    result = main(*sys.argv[1:])
    print(json.dumps(result), flush=True)
    os._exit(0)  # bpy 5.2 now and then crashes while Python shuts down, after all is done
