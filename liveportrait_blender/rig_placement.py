# SPDX-License-Identifier: GPL-3.0-or-later
"""A keypoint rig on the face of the picture that shows its performance.

The rig's own space is the crop of what drove, [-1, 1] across. result.json says where the portrait's crop lies
in the pictures, and how large its face is in it. The rig becomes a child of the plane, so that it stays on
the face wherever the plane goes; what it performs is read in its own space, wherever it stands.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from mathutils import Euler, Matrix, Vector

from . import image_plane, recipes
from .keypoint_rig import neutral

log = logging.getLogger(__name__)


def put_on_face(rig: Any, image: Any, relative: bool = True) -> bool:
    """Stand the rig on the face in the plane of a result; False, and nothing done, where there is no such
    plane, or the result does not say where the face is. relative: the portrait moves as what drove does from
    its neutral face on, so the two lie on each other; else as it does in its crop."""
    scenes = set(rig.users_scene)
    planes = (
        owner
        for owner in image_plane.objects_with(image)
        if image_plane.is_plane_of(owner, image) and scenes.intersection(owner.users_scene)
    )
    plane, face = next(planes, None), _face(image)
    if plane is None or face is None:
        return False
    local = _crop_on_plane(face["placement"], image)
    if relative:
        local = local @ _portrait_of_driver(face, rig)
    rig.parent = plane
    rig.matrix_parent_inverse = Matrix()
    rig.matrix_basis = local
    return True


def _face(image: Any) -> Mapping[str, Any] | None:
    """What result.json says of the face, checked; None of results of before, or that somebody else wrote."""
    try:
        said = recipes.summary_of(image).get("face")
        if said is None:
            return None
        (a, b, x), (c, d, y) = ([float(number) for number in row] for row in said["placement"])
        tx, ty = (float(number) for number in said["translation"])
        scale = float(said["scale"])
    except (ValueError, TypeError, KeyError) as error:
        log.info("The result says nothing of its face: %s", error)
        return None
    if not all(map(math.isfinite, (a, b, x, c, d, y, tx, ty))) or not 0 < scale < math.inf or a * d == b * c:
        return None
    return {"placement": ((a, b, x), (c, d, y)), "scale": scale, "translation": (tx, ty)}


def _crop_on_plane(placement: Any, image: Any) -> Matrix:
    """From the rig's space (x right, z up, y into the picture) to the plane's."""
    (a, b, x), (c, d, y) = placement
    width, height = image.size
    across = 2.0 * image_plane.half_width(image) / width  # plane's units a pixel
    down = 1.0 / height
    place = Vector(((x - 0.5 * width) * across, 0.0, (0.5 * height - y) * down))
    right, below = math.hypot(a * across, c * down), math.hypot(b * across, d * down)
    turn = Euler((0.0, math.atan2(c * down, a * across), 0.0))
    return Matrix.LocRotScale(place, turn, Vector((right, 0.5 * (right + below), below)))


def _portrait_of_driver(face: Mapping[str, Any], rig: Any) -> Matrix:
    """From the crop of what drove to the portrait's: their neutral faces on each other."""
    base = neutral(rig)
    if base is None or not float(base.scale[0]) > 0.0:
        return Matrix()
    grown = face["scale"] / float(base.scale[0])
    x, y = (own - grown * float(there) for own, there in zip(face["translation"], base.translation[0, :2]))
    return Matrix.LocRotScale(Vector((x, 0.0, -y)), None, Vector((grown,) * 3))
