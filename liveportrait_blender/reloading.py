# SPDX-License-Identifier: GPL-3.0-or-later
"""Results keep the frame they show when their image is reloaded.

`image.reload()`, as scripts and add-ons call it, has Blender (4.2 to 5.2) copy the material's nodes anew
with the frame that the file holds, mostly 0, and count it afresh only when the scene's frame changes: until
then the plane shows its first picture. So the right frame is written into the file's node, the original.
"""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import image_plane, results


@persistent
def keep_frame(scene: Any, depsgraph: Any = None) -> None:
    """After an update: put right what shows another frame than the scene's."""
    if depsgraph is None or depsgraph.mode != "VIEWPORT":
        return
    changed = [update.id.original for update in depsgraph.updates]
    for material in {one for one in changed if isinstance(one, bpy.types.Material)}:
        image = results.of_material(material)
        if image is None or material.library is not None:
            continue
        shown = material.evaluated_get(depsgraph).node_tree
        for node in material.node_tree.nodes:
            if getattr(node, "image", None) != image or not hasattr(node, "image_user"):
                continue
            user, copied = node.image_user, shown.nodes.get(node.name)
            wanted = image_plane.shown_frame(user, scene.frame_current)
            # Where it is in the file already, this was done before, and something else is the matter.
            if copied and user.use_auto_refresh and wanted not in (
                copied.image_user.frame_current,
                user.frame_current,
            ):
                user.frame_current = wanted
                material.node_tree.update_tag()


def register() -> None:
    bpy.app.handlers.depsgraph_update_post.append(keep_frame)


def unregister() -> None:
    if keep_frame in bpy.app.handlers.depsgraph_update_post:
        bpy.app.handlers.depsgraph_update_post.remove(keep_frame)
