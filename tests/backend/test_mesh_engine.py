# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh engine on a real photograph: what an animator sees move, and what must not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.engines.filling import fill
from backend.engines.mesh import MeshEngine
from backend.engines.mesh_maps import eye_openings, lip_opening
from backend.engines.mesh_motion import move
from backend.engines.mesh_mouth import PATCH_SIZE
from backend.engines.mesh_source import MeshAppearance, follows, outer_mesh, to_pixels
from backend.engines.mesh_topology import topology
from backend.faces import find_faces
from backend.motion import Motion
from backend.rotations import rotation_from_euler

LEFT_EYE, RIGHT_EYE = (33, 133, 159, 145), (263, 362, 386, 374)


@dataclass
class Subject:
    """One source, ready: the region's pixels, its landmarks there, its motion and the engine's appearance."""

    engine: MeshEngine
    region: np.ndarray
    landmarks: np.ndarray
    motion: Motion
    appearance: MeshAppearance

    @property
    def x_s(self) -> np.ndarray:
        return self.motion.keypoints()

    def posed(
        self, change: np.ndarray | None = None, pitch=0.0, yaw=0.0, roll=0.0, shift=(0.0, 0.0)
    ) -> np.ndarray:
        """x_d (1,21,3): the source turned by degrees, shifted and with delta changed."""
        m = self.motion
        turn = rotation_from_euler(*(np.array([angle], float) for angle in (pitch, yaw, roll)))
        delta = m.expression + (0 if change is None else change)
        x = m.scale[:, None, None] * (m.canonical @ (turn @ m.rotation) + delta) + m.translation[:, None]
        return (x + np.array([*shift, 0.0])).astype(np.float32)

    def render(self, x_d: np.ndarray, **kwargs) -> np.ndarray:
        return self.engine.render(self.appearance, self.x_s, x_d, **kwargs)

    def box(self, points: tuple[int, ...], pad: float = 0.3) -> tuple[slice, slice]:
        p = self.landmarks[list(points), :2]
        reach = pad * np.ptp(p[:, 0])
        (x0, y0), (x1, y1) = (p.min(axis=0) - reach).astype(int), (p.max(axis=0) + reach).astype(int)
        return slice(y0, y1), slice(x0, x1)


def delta(**terms: float) -> np.ndarray:
    """A change of delta (1,21,3) from names like k11y."""
    change = np.zeros((1, 21, 3), np.float32)
    for name, value in terms.items():
        change[0, int(name[1:-1]), "xyz".index(name[-1])] = value
    return change


@pytest.fixture(scope="module")
def subject(astronaut: Path) -> Subject:
    picture = cv2.cvtColor(cv2.imread(str(astronaut)), cv2.COLOR_BGR2RGB)
    face = find_faces(picture)[0]
    unit = float(np.linalg.norm(face.landmarks[33, :2] - face.landmarks[263, :2]))
    centre = face.landmarks[:468, :2].mean(axis=0)
    half = 2.2 * unit
    x0, y0 = np.maximum(np.floor(centre - half), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(centre + half), picture.shape[1::-1]).astype(int)
    region = np.ascontiguousarray(picture[y0:y1, x0:x1])
    landmarks = face.landmarks.copy()
    landmarks[:, :2] -= (x0, y0)
    placement = np.array([[half, 0, centre[0] - x0], [0, half, centre[1] - y0]])
    in_crop = landmarks.copy()
    in_crop[:, :2] = (landmarks[:, :2] - placement[:, 2] + half) * (128 / half)
    in_crop[:, 2] *= 128 / half
    engine = MeshEngine()
    return Subject(
        engine,
        region,
        landmarks,
        engine.measure(np.empty(0), in_crop[None]),
        engine.encode(region, landmarks, placement),
    )


def seen(picture: np.ndarray) -> np.ndarray:
    """Landmarks found again on a rendered picture."""
    return find_faces(picture)[0].landmarks


def test_a_source_at_rest_is_its_own_picture(subject: Subject) -> None:
    assert np.array_equal(subject.render(subject.x_s)[0], subject.region)


def test_the_border_never_moves_so_the_paste_needs_no_seam(subject: Subject) -> None:
    frame = subject.render(subject.posed(yaw=15, pitch=10, roll=12, shift=(0.15, 0.1)))[0]
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.abs(frame[edge].astype(int) - subject.region[edge]).max() <= 1
    assert not np.array_equal(frame, subject.region)


@pytest.mark.parametrize(
    ("axis", "degrees"), [("yaw", 12.0), ("yaw", -12.0), ("pitch", 12.0), ("pitch", -12.0)]
)
def test_the_head_turns_as_asked(subject: Subject, axis: str, degrees: float) -> None:
    """+yaw: the nose goes to image-left; +pitch: it goes down."""
    turned = subject.posed(yaw=degrees) if axis == "yaw" else subject.posed(pitch=degrees)
    found = seen(subject.render(turned)[0])
    unit = np.linalg.norm(subject.landmarks[33, :2] - subject.landmarks[263, :2])
    nose = (found[1, :2] - found[[33, 263], :2].mean(axis=0)) - (
        subject.landmarks[1, :2] - subject.landmarks[[33, 263], :2].mean(axis=0)
    )
    moved = -nose[0] if axis == "yaw" else nose[1]
    assert moved / unit * np.sign(degrees) > 0.05


def test_wink_shuts_the_image_left_eye_only(subject: Subject) -> None:
    frame = subject.render(subject.posed(delta(k11y=0.025, k13y=-0.0075)))[0]
    openings = eye_openings(seen(frame)[None])[0]
    before = eye_openings(subject.landmarks[None])[0]
    assert openings[0] < 0.45 * before[0]
    assert openings[1] > 0.8 * before[1]
    right = subject.box(RIGHT_EYE)
    assert np.abs(frame[right].astype(int) - subject.region[right]).mean() < 3


def test_eyes_and_lips_reach_the_openings_asked_for(subject: Subject) -> None:
    ratios = np.concatenate([subject.motion.eye_ratio, [[0.0]]], axis=1)
    shut = subject.render(subject.x_s + subject.engine.retarget_eyes(subject.x_s, ratios))[0]
    before = eye_openings(subject.landmarks[None])[0]
    assert (eye_openings(seen(shut)[None])[0] < 0.5 * before).all()
    open_lips = subject.engine.retarget_lips(subject.x_s, np.array([[subject.motion.lip_ratio[0], 0.5]]))
    found = lip_opening(seen(subject.render(subject.x_s + open_lips)[0])[None])[0]
    assert 0.3 < found < 0.7


def test_lips_meet_when_they_should(subject: Subject) -> None:
    closing = subject.engine.retarget_lips(subject.x_s, np.array([[subject.motion.lip_ratio[0], 0.0]]))
    found = seen(subject.render(subject.x_s + closing)[0])
    assert lip_opening(found[None])[0] < max(0.03, lip_opening(subject.landmarks[None])[0])


def test_gaze_moves_the_iris_and_not_the_face(subject: Subject) -> None:
    frame = subject.render(subject.posed(delta(k11x=0.014, k15x=0.02)))[0]
    found = seen(frame)
    shift = (found[[468, 473], 0] - subject.landmarks[[468, 473], 0]).mean()
    width = np.linalg.norm(subject.landmarks[33, :2] - subject.landmarks[133, :2])
    assert shift / width > 0.03
    unit = np.linalg.norm(subject.landmarks[33, :2] - subject.landmarks[263, :2])
    nose = found[[1, 4, 98, 327], :2] - subject.landmarks[[1, 4, 98, 327], :2]
    assert np.linalg.norm(nose, axis=1).max() / unit < 0.03


def test_the_background_stays_when_the_head_moves(subject: Subject) -> None:
    frame = subject.render(subject.posed(shift=(0.1, 0.0)))[0]
    person = subject.appearance.cover
    assert person is not None
    height, width = subject.region.shape[:2]
    away = cv2.resize(person, (width, height)) < 0.01
    away = cv2.erode(away.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    moved_into = np.roll(~away, int(0.1 * width / 2), axis=1)
    still = away & ~cv2.dilate(moved_into.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert still.sum() > 500
    assert np.abs(frame[still].astype(int) - subject.region[still]).max() <= 2


def test_a_drivers_mouth_shows_between_parted_lips_only(subject: Subject) -> None:
    patch = np.zeros((1, *PATCH_SIZE, 3), np.uint8)
    patch[..., 1] = 200
    parted = subject.x_s + subject.engine.retarget_lips(
        subject.x_s, np.array([[subject.motion.lip_ratio[0], 0.9]])
    )
    own, borrowed = subject.render(parted)[0], subject.render(parted, mouths=patch)[0]
    changed = np.abs(own.astype(int) - borrowed).max(axis=-1) > 8
    mouth = np.zeros_like(changed)
    mouth[subject.box((61, 291, 0, 17), pad=0.6)] = True
    assert changed.any()
    assert not changed[~mouth].any()


def test_a_batch_is_its_frames(subject: Subject) -> None:
    x_d = np.concatenate([subject.posed(yaw=a, shift=(a / 100, 0)) for a in (-8, 0, 8)])
    together = subject.render(x_d)
    for k in range(3):
        assert np.array_equal(together[k], subject.render(x_d[k : k + 1])[0])


def test_no_pose_tears_the_picture(subject: Subject) -> None:
    """Far out of range the engine bends the motion back: every pixel still comes from the picture."""
    frame = subject.render(subject.posed(pitch=60, yaw=-80, roll=90, shift=(2.0, -2.0)))[0]
    assert frame.std() > 0.5 * subject.region.std()
    centre = frame[frame.shape[0] // 4 : -frame.shape[0] // 4]
    assert (centre.max(axis=(1, 2)) > 60).all()


def test_measuring_needs_landmarks_and_says_so(subject: Subject) -> None:
    with pytest.raises(ValueError, match="landmarks"):
        subject.engine.measure(np.zeros((1, 256, 256, 3), np.uint8))
    with pytest.raises(ValueError, match="landmarks"):
        subject.engine.encode(subject.region)


def test_filling_keeps_what_is_known_and_blends_the_rest() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :30], picture[:, 30:] = 40, 200
    unknown = np.zeros((40, 60), bool)
    unknown[10:30, 10:50] = True
    filled = fill(picture, unknown)
    assert np.array_equal(filled[~unknown], picture[~unknown])
    assert filled[20, 12, 0] < filled[20, 30, 0] < filled[20, 47, 0]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_portrait_on_its_side_or_upside_down_moves_as_if_upright(subject: Subject, quarters: int) -> None:
    """The head of a turned picture turns, speaks and shuts its eyes as that of the upright one."""
    region = np.ascontiguousarray(np.rot90(subject.region, quarters))
    landmarks, placement = subject.landmarks.copy(), subject.appearance.placement.copy()
    width = subject.region.shape[1]
    for _ in range(quarters):
        landmarks[:, :2] = np.stack([landmarks[:, 1], width - landmarks[:, 0]], axis=1)
        placement = np.stack([placement[1], [0.0, 0.0, width] - placement[0]])
        width = subject.region.shape[0] if width == subject.region.shape[1] else subject.region.shape[1]
    turned = subject.engine.encode(region, landmarks, placement)
    assert np.array_equal(subject.engine.render(turned, subject.x_s, subject.x_s)[0], region)
    x_d = subject.posed(delta(k11y=0.02, k19y=0.02), yaw=15, pitch=5, shift=(0.05, 0.02))
    frame = np.rot90(subject.engine.render(turned, subject.x_s, x_d)[0], -quarters).astype(int)
    assert np.abs(frame - subject.render(x_d)[0]).mean() < 0.2


def test_a_turned_cheek_is_parted_cleanly_from_what_it_hides(subject: Subject) -> None:
    """A green face with a thin white rim on blue: where the cheek hides the rim no white is left."""
    region = np.zeros_like(subject.region)
    region[:] = (0, 0, 200)
    oval = subject.landmarks[topology().oval, :2]
    middle = oval.mean(axis=0)
    for size, colour in ((1.07, (255, 255, 255)), (1.03, (0, 200, 0))):
        cv2.fillPoly(region, [np.round(middle + size * (oval - middle)).astype(np.int32)], colour)
    appearance = replace(subject.appearance, region=region, plate=None, cover=None, buffers={})
    frame = subject.engine.render(appearance, subject.x_s, subject.posed(yaw=-22, pitch=8))[0]
    high = float(np.ptp(oval[:, 1]))
    # The leading side, image-right, at the height of the cheek bone.
    cheek = frame[int(middle[1] - 0.11 * high) : int(middle[1] + 0.04 * high), int(middle[0]) :]
    assert len(cheek) > 15
    assert (cheek[:, 0, 1] > 150).all()
    assert (cheek[:, -1, 2] > 150).all()
    white = cheek[..., 0] > 40
    assert white.any(axis=1).mean() < 0.1


def test_nothing_of_the_eyeball_shows_under_closed_lids(subject: Subject) -> None:
    """Nor of the bright rim just outside the landmarks, which paintings show as a line under the lid."""
    region = subject.region.copy()
    loops = [subject.landmarks[loop, :2] for loop in topology().eye_loops]
    for points in loops:
        width = float(np.ptp(points[:, 0]))
        rim = points + [0.0, 0.04 * width]
        for outline in (rim, points):
            cv2.fillPoly(region, [np.round(outline).astype(np.int32)], (255, 0, 255))
    landmarks, placement = subject.landmarks, subject.appearance.placement
    appearance = subject.engine.encode(region, landmarks, placement)
    assert np.array_equal(subject.engine.render(appearance, subject.x_s, subject.x_s)[0], region)
    ratios = np.concatenate([subject.motion.eye_ratio, [[0.0]]], axis=1)
    shut = subject.engine.render(
        appearance, subject.x_s, subject.x_s + subject.engine.retarget_eyes(subject.x_s, ratios)
    )[0].astype(int)
    colourful = np.minimum(shut[..., 0], shut[..., 2]) - shut[..., 1]
    own = np.minimum(subject.region[..., 0], subject.region[..., 2]).astype(int) - subject.region[..., 1]
    for box in (subject.box(LEFT_EYE), subject.box(RIGHT_EYE)):
        assert colourful[box].max() < own[box].max() + 25


def inner_mouth(subject: Subject, patch: np.ndarray) -> np.ndarray:
    """The middle column (n,3) of the wide open mouth, upper lip to lower lip, with a driver's patch."""
    parted = subject.x_s + subject.engine.retarget_lips(
        subject.x_s, np.array([[subject.motion.lip_ratio[0], 1.1]])
    )
    frame = subject.render(parted, mouths=patch[None])[0]
    found = subject.render(parted, mouths=np.full_like(patch, (0, 255, 0))[None])[0].astype(int)
    green = (found[..., 1] - np.maximum(found[..., 0], found[..., 2])) > 60
    rows, columns = np.nonzero(green)
    column = int(np.median(columns))
    return frame[rows[columns == column], column].astype(float)


def test_a_hazy_drivers_mouth_gets_a_dark_depth(subject: Subject) -> None:
    """Teeth above, cavity below, in a driver whose darkest mouth is as grey as fog."""
    patch = np.full((*PATCH_SIZE, 3), (84, 66, 66), np.uint8)
    patch[:20] = (140, 136, 128)
    light = inner_mouth(subject, patch).mean(axis=1)
    count = len(light)
    assert count > 8
    teeth, cavity = light[count // 5 : count // 3].mean(), light[count // 2 : -count // 5].mean()
    assert cavity < 0.35 * teeth  # 0.54 in the driver


def test_a_drivers_flesh_takes_the_sources_colours_and_its_teeth_stay_pale(subject: Subject) -> None:
    patch = np.full((*PATCH_SIZE, 3), (110, 74, 118), np.uint8)  # a tongue in violet light
    patch[:20] = (140, 136, 128)
    column = inner_mouth(subject, patch)
    count = len(column)
    teeth = column[count // 5 : count // 3].mean(axis=0)
    flesh = column[count // 2 : -count // 5].mean(axis=0)
    assert flesh[0] > 1.2 * flesh[2]
    assert teeth[1] > 0.75 * teeth[0]


def test_the_surroundings_are_covered_by_triangles_once(subject: Subject) -> None:
    """Every place of a region lies in one triangle round the face, whatever the region's shape."""
    for height, width in ((400, 400), (300, 700)):
        scale = 0.3 * height / float(np.ptp(subject.landmarks[:, 1]))
        landmarks = subject.landmarks * scale
        landmarks[:, :2] += (width / 2, height / 2) - landmarks[:, :2].mean(axis=0)
        outer, triangles = outer_mesh(landmarks, width, height)
        points = np.concatenate([landmarks[:468, :2], outer])
        a, b, c = (points[triangles[:, i]] for i in range(3))
        area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
        assert area.min() >= -1e-6
        assert area.sum() == pytest.approx(width * height, rel=1e-5)


def test_a_three_quarter_face_that_turns_back_keeps_hair_off_its_far_cheek(subject: Subject) -> None:
    """Everything beyond the cheek is magenta; none of it comes on to the cheek when the face turns back."""
    picture = subject.render(subject.posed(yaw=-20))[0].copy()
    landmarks = seen(picture)
    oval = landmarks[topology().oval, :2]
    middle = oval.mean(axis=0)
    face = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(face, [np.round(middle + 0.98 * (oval - middle)).astype(np.int32)], (1,))
    picture[face == 0] = (255, 0, 255)
    half = subject.appearance.placement[0, 0]
    in_crop = landmarks.copy()
    in_crop[:, :2] = (landmarks[:, :2] - subject.appearance.placement[:, 2] + half) * (128 / half)
    in_crop[:, 2] *= 128 / half
    motion = subject.engine.measure(np.empty(0), in_crop[None])
    turned = Subject(
        subject.engine,
        picture,
        landmarks,
        motion,
        subject.engine.encode(picture, landmarks, subject.appearance.placement),
    )
    back = turned.posed(yaw=16)
    split = turned.engine.maps.split(turned.x_s, back)
    pose = (split.ratio, split.rotation, split.translation)
    moved = move(turned.appearance, pose, turned.engine.maps.decode(split.change)).face[0]
    shown = to_pixels(moved, turned.appearance.placement)
    # The far cheek: from the nose's wing to nearly the outline, below the eye, on image-right.
    cheek = shown[[358, 266, 330, 280, 352, 411, 427, 436, 376, 433]].astype(np.int32)
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillConvexPoly(
        mask, cv2.convexHull(np.concatenate([cheek, shown[[376, 433]].astype(np.int32)])), (1,)
    )
    frame = turned.render(back)[0].astype(int)
    magenta = (np.minimum(frame[..., 0], frame[..., 2]) - frame[..., 1]) > 60
    assert mask.sum() > 300
    assert magenta[mask > 0].mean() < 0.01


def test_long_hair_beside_the_neck_bends_without_a_kink(subject: Subject) -> None:
    """From the ears down to the shoulders what hangs there follows the head less and less, never abruptly."""
    app = subject.appearance
    unit = app.eye_unit * app.scale * float(app.placement[0, 0])
    ear = to_pixels(app.landmarks[[234]], app.placement)[0]
    down = np.linspace(0.0, 1.2, 49)
    x = np.full(len(down), ear[0] - 0.15 * unit)
    pose = (app.translation, app.scale, app.rotation, app.eye_unit)
    size = (int(ear[1] + 3 * unit), 10 * int(ear[0]))  # whatever the picture's own border
    follow = follows(np.column_stack([x, ear[1] + down * unit]), app.placement, pose, unit, size)
    assert follow[0] > 0.8
    assert follow[-1] < 0.15
    assert np.diff(follow).min() * 40 > -1.8  # a head moved by its unit shears it by less than 1.8
