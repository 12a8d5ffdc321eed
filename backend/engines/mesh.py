# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded engine: no weights to download, runs on a CPU, speaks LivePortrait's motion space.

MediaPipe's landmarks are read into implicit-keypoint motion by fitted linear maps (mesh_maps), and keypoint
motion is shown by warping the source's own pixels (mesh_motion, mesh_warp) with an eye and a mouth layer.
"""

from __future__ import annotations

import numpy as np

from ..motion import Motion
from .mesh_eyes import draw_eye, draw_lids
from .mesh_maps import MeshMaps
from .mesh_motion import Targets, move
from .mesh_mouth import draw_mouth, mouth_patch
from .mesh_source import MeshAppearance, make_appearance, quarters_of, to_pixels, upright
from .mesh_topology import topology
from .mesh_warp import skin_map, warp
from .person import PersonFinder

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

# (keypoint, axis, coefficient): LivePortrait's own sliders for one eye's lids and for opening the lips.
LID_DIRECTIONS = (((11, 1, 1e-3), (13, 1, -3e-4)), ((15, 1, 1e-3), (16, 1, -3e-4)))
LIP_DIRECTION = ((19, 1, 1e-3), (19, 2, 1e-4), (17, 1, -1e-4))


def _directions(tables: tuple) -> np.ndarray:
    delta = np.zeros((len(tables), 21, 3))
    for row, terms in enumerate(tables):
        for keypoint, axis, coefficient in terms:
            delta[row, keypoint, axis] = coefficient
    return delta


class MeshEngine:
    """See `engines.Engine`. Not for several threads on one appearance: a render reuses its buffers."""

    name = "mesh"
    device = "cpu"
    native_resolution = (
        True  # render answers in the source region's own pixels, displacement zero at its border
    )
    wants_landmarks = True
    wants_mouths = True
    landmark_count = 478

    def __init__(self) -> None:
        self.maps = MeshMaps.load()
        self._persons = PersonFinder()
        # Which delta changes a ratio by 1: the published lid and lip directions, scaled by the fitted map's
        # answer to them.
        eyes = _directions(LID_DIRECTIONS)
        answer = self.maps.decode(eyes).eye_ratio
        self._per_eye_ratio = np.linalg.solve(answer.astype(np.float64), eyes.reshape(2, -1)).reshape(
            2, 21, 3
        )
        lips = _directions((LIP_DIRECTION,))
        self._per_lip_ratio = lips[0] / float(self.maps.decode(lips).lip_ratio[0])

    def refine(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """MediaPipe's landmarks (478,3) as they are, float32."""
        return landmarks.astype(np.float32)

    def measure(self, crops: np.ndarray, landmarks: np.ndarray | None = None) -> Motion:
        """crops (n,256,256,3) uint8 are not looked at; landmarks (n,478,3) in crop pixels -> Motion of n
        frames at 25/s.

        Raises ValueError without landmarks.
        """
        if landmarks is None:
            raise ValueError("the mesh engine measures landmarks; give (n,478,3) in crop pixels")
        found = self.maps.measure(np.asarray(landmarks))
        count = len(found.scale)
        return Motion(
            fps_numerator=25,
            fps_denominator=1,
            start=0.0,
            rotation=found.rotation,
            expression=found.expression,
            scale=found.scale,
            translation=found.translation,
            canonical=found.canonical,
            eye_ratio=found.eye_ratio,
            lip_ratio=found.lip_ratio,
            gaze=found.gaze,
            mouth=None,
            valid=np.ones(count, bool),
            engine=self.name,
        )

    def encode(
        self, crop: np.ndarray, landmarks: np.ndarray | None = None, placement: np.ndarray | None = None
    ) -> MeshAppearance:
        """Prepare a source once.

        crop (h,w,3) uint8: an upright region of the picture, best at its own resolution; landmarks (478,3)
        in its pixels; placement (2,3): crop coordinates [-1,1] -> region pixels, by default the region is
        the crop. Raises ValueError without landmarks.
        """
        if landmarks is None:
            raise ValueError("the mesh engine needs the source's landmarks (478,3)")
        if placement is None:
            height, width = crop.shape[:2]
            placement = IDENTITY * 0.5 * np.array([[width], [height]])
            placement[:, 2] = 0.5 * width, 0.5 * height
        # Heads on their side or upside down are turned first: layers and person finder know upright ones.
        quarters = quarters_of(landmarks)
        crop, landmarks, placement = upright(crop, np.asarray(landmarks, np.float64), placement, quarters)
        appearance = make_appearance(crop, landmarks, placement, self.maps, self._persons.mask(crop))
        appearance.quarters = quarters
        return appearance

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        """The region's border never moves here, so there is nothing to stitch: driving (n,21,3) as it
        came.
        """
        return driving

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Change of the keypoints (n,21,3) that brings the eyes from ratios[:, :2] to ratios[:, 2] (n,3)."""
        ratios = np.asarray(ratios, np.float64).reshape(-1, 3)
        delta = np.einsum("ne,ekc->nkc", ratios[:, 2:] - ratios[:, :2], self._per_eye_ratio)
        return (delta * self._scale(source)).astype(np.float32)

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Change of the keypoints (n,21,3) that brings the lips from ratios[:, 0] to ratios[:, 1] (n,2)."""
        ratios = np.asarray(ratios, np.float64).reshape(-1, 2)
        delta = (ratios[:, 1] - ratios[:, 0])[:, None, None] * self._per_lip_ratio
        return (delta * self._scale(source)).astype(np.float32)

    def _scale(self, source: np.ndarray) -> np.ndarray:
        """s of keypoints (n,21,3), as (n,1,1): delta counts in canonical units, keypoints in crop
        coordinates.
        """
        return self.maps.split(source, source).scale[:, None, None]

    def mouth_patch(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The driver's inner mouth (48,64,3) uint8 for Motion.mouth; see mesh_mouth.mouth_patch."""
        return mouth_patch(picture, landmarks)

    def render(
        self,
        appearance: MeshAppearance,
        source: np.ndarray,
        driving: np.ndarray,
        mouths: np.ndarray | None = None,
    ) -> np.ndarray:
        """source (n or 1,21,3), driving (n,21,3), mouths (n,48,64,3) uint8 or None -> pictures (n,h,w,3)
        uint8.
        """
        driving = np.asarray(driving)
        height, width = np.rot90(appearance.region, -appearance.quarters).shape[:2]
        frames = np.empty((len(driving), height, width, 3), np.uint8)
        drawn = np.empty_like(appearance.region) if appearance.quarters else None
        split = self.maps.split(source, driving)
        targets = move(
            appearance, (split.ratio, split.rotation, split.translation), self.maps.decode(split.change)
        )
        for k in range(len(driving)):
            patch = None if mouths is None else mouths[k]
            self._draw(appearance, targets, k, patch, frames[k] if drawn is None else drawn)
            if drawn is not None:
                frames[k] = np.rot90(drawn, -appearance.quarters)
        return frames

    def _draw(
        self, app: MeshAppearance, targets: Targets, k: int, patch: np.ndarray | None, out: np.ndarray
    ) -> None:
        warp(app, *skin_map(app, targets, k), out, float(targets.hull[k]))
        moved, rigid = to_pixels(targets.face[k], app.placement), to_pixels(targets.rigid[k], app.placement)
        for side, eye in enumerate(app.eyes):
            lids, opening = moved[eye.loop], float(targets.opening[k, side])
            draw_lids(out, eye, lids, opening, (app.buffers["map_x"], app.buffers["map_y"]))
            draw_eye(out, eye, lids, rigid[eye.loop], opening, targets.gaze[k, side])
        ratio, rotation, translation = (part[k] for part in targets.pose)

        def project(points: np.ndarray) -> np.ndarray:
            own = app.scale * (points @ app.rotation) + app.translation
            return to_pixels(ratio * (own @ rotation) + translation, app.placement)

        draw_mouth(
            out,
            app.mouth,
            moved,
            topology().inner_lips,
            project,
            float(targets.lip_gap[k]),
            float(targets.jaw[k]),
            patch,
        )
