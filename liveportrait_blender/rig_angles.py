# SPDX-License-Identifier: GPL-3.0-or-later
"""Head rotations as curves: matrices <-> Euler angles that go on smoothly. Imports no bpy.

Row vectors turn as x' = x @ R, R = (Rz(roll) Ry(yaw) Rx(pitch))^T; angles are (pitch, yaw, roll) in radians,
which is Blender's XYZ Euler of a bone that rests with LivePortrait's axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_JUMP = 1.6  # radians from one frame to the next that no head turns


def matrices(angles: np.ndarray) -> np.ndarray:
    """(n,3,3) float64 from (n,3) radians."""
    import numpy as np

    (cp, cy, cr), (sp, sy, sr) = np.cos(angles).T, np.sin(angles).T
    rows = [
        [cr * cy, sr * cy, -sy],
        [cr * sy * sp - sr * cp, sr * sy * sp + cr * cp, cy * sp],
        [cr * sy * cp + sr * sp, sr * sy * cp - cr * sp, cy * cp],
    ]
    return np.array(rows).transpose(2, 0, 1)


def angles(rotation: np.ndarray, shots: np.ndarray | None = None) -> np.ndarray:
    """(n,3) radians from (n,3,3), without jumps of whole turns within a shot.

    shots (n,): per frame the number of its shot; None for one shot.
    """
    import numpy as np

    m = np.asarray(rotation, np.float64)
    yaw = np.arctan2(-m[:, 0, 2], np.hypot(m[:, 0, 0], m[:, 0, 1]))
    locked = np.hypot(m[:, 0, 0], m[:, 0, 1]) < 1e-6  # pitch and roll turn about one axis: all is pitch
    pitch = np.where(locked, np.arctan2(-m[:, 2, 1], m[:, 1, 1]), np.arctan2(m[:, 1, 2], m[:, 2, 2]))
    roll = np.where(locked, 0.0, np.arctan2(m[:, 0, 1], m[:, 0, 0]))
    found = np.stack([pitch, yaw, roll], 1)
    edges = [] if shots is None else (np.flatnonzero(np.diff(shots)) + 1).tolist()
    for first, stop in zip([0, *edges], [*edges, len(found)]):
        found[first:stop] = _smooth(found[first:stop])
    return found


def _smooth(found: np.ndarray) -> np.ndarray:
    """The same turns, each written with the angles nearest to those of the frame before it."""
    import numpy as np

    unwrapped = np.unwrap(found, axis=0)
    if len(found) < 2 or np.abs(np.diff(unwrapped, axis=0)).max() < _JUMP:
        return unwrapped
    # Past a quarter turn of yaw the other way to write a turn is the one that goes on smoothly.
    other = found * (1, -1, 1) + np.pi
    for k in range(1, len(found)):
        ways = np.stack([found[k], other[k]])
        ways += np.round((found[k - 1] - ways) / (2 * np.pi)) * 2 * np.pi
        found[k] = ways[np.abs(ways - found[k - 1]).sum(axis=1).argmin()]
    return found
