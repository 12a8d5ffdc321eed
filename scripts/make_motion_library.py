#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the motion library, backend/data/library/*.npz, from the expression controls: always the same
numbers.

Each performance is animated as a person would key it: 30 frames a second, eyes lead, the head follows and
overshoots, lids close fast and open slowly, and everything starts and ends at rest so that it loops. Angles
are degrees (pitch + down, yaw + to image left, roll + clockwise), other channels the controls' units.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from backend.engines.mesh_maps import MeshMaps  # noqa: E402
from backend.expressions import apply_controls, neutral_expression  # noqa: E402
from backend.motion import Motion  # noqa: E402
from backend.motion_files import save_motion  # noqa: E402
from backend.ratios import ratio_change  # noqa: E402
from scripts.animation_curves import FPS, bump, delay, keys, soften, spring  # noqa: E402

# Where the released templates have a head at rest: scale, translation, and the eye opening of a calm face.
SCALE, TRANSLATION = 1.5, (0.0, 0.07, 0.0)
EYE_RATIO = 0.36
# Translation over scale for a degree of (pitch, yaw, roll), least squares over the released templates.
SWAY = np.array([[0.0, 0.0051], [-0.0053, 0.0], [0.0, -0.0016]])
# Share of the lid's way in the frames of a blink, as in the released templates d0, d5, d7: two down, five up.
BLINK = (0.45, 1.0, 1.0, 0.72, 0.38, 0.2, 0.09, 0.03)
CLOSED = -15.0  # the blink control that shuts a calm eye
# Gaze for a degree of head turn that keeps the eyes on the viewer.
HOLD_X, HOLD_Y = 0.6, 0.35
STEP = 2.0**-16  # of every stored number: far below what is seen, and zero bits compress


def rounded(values: np.ndarray, steps: int = 1) -> np.ndarray:
    """To the nearest multiple of `steps` STEPs; + 0.0 leaves no negative zeros."""
    return np.round(values / (STEP * steps)) * (STEP * steps) + 0.0


class Performance:
    """Channels of one motion, n frames, all at rest until something is added."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.n = round(seconds * FPS)
        self.random = np.random.default_rng(seed)
        self.channels: dict[str, np.ndarray] = {}

    def add(self, **curves: np.ndarray) -> None:
        """Add curves (n,) to channels: controls, shift_x and shift_y (translation over scale), grow."""
        for name, curve in curves.items():
            self.channels[name] = self.channels.get(name, np.zeros(self.n)) + curve

    def key(self, name: str, *pairs: tuple[float, float]) -> np.ndarray:
        """Key a channel and return the curve."""
        curve = keys(self.n, *pairs)
        self.add(**{name: curve})
        return curve

    def blink(self, at: int, depth: float = 1.0, slow: float = 1.0) -> None:
        """A blink that starts at frame `at`; slow stretches its opening."""
        frames = np.concatenate([np.arange(3), 2 + slow * np.arange(1, len(BLINK) - 2)])
        share = np.interp(
            np.arange(self.n) - at, np.concatenate([[-1], frames, [frames[-1] + 1]]), (0, *BLINK, 0)
        )
        # The two lids never move quite alike.
        unlike = 1 + 0.03 * self.random.standard_normal()
        self.add(
            blink_left=CLOSED * depth * share, blink_right=CLOSED * depth * unlike * share, brow=-1.5 * share
        )

    def drift(self, amplitude: float, fastest: float = 1.2) -> np.ndarray:
        """Aimless small movement, up to `fastest` hertz, zero at both ends."""
        highest = max(2, round(fastest * self.n / FPS))
        order = np.arange(1, highest + 1)
        phases = self.random.uniform(0, 2 * np.pi, highest)
        waves = np.sin(2 * np.pi * order[:, None] * np.arange(self.n) / self.n + phases[:, None])
        wander = (waves / np.sqrt(order)[:, None]).sum(axis=0)
        return amplitude * wander / wander.std() * self.rest_window(14)

    def rest_window(self, frames: int) -> np.ndarray:
        """1, but easing from and to 0 over the first and last `frames`."""
        return keys(self.n, (0, 0), (frames, 1), (self.n - 1 - frames, 1), (self.n - 1, 0))

    def alive(self, amount: float = 1.0) -> None:
        """Breath-sized movement of head, brows and mouth, so that nothing stands still like a statue."""
        self.add(
            pitch=self.drift(0.35 * amount), yaw=self.drift(0.45 * amount), roll=self.drift(0.3 * amount)
        )
        self.add(brow=self.drift(0.5 * amount, 0.8), lips_open=self.drift(0.7 * amount, 0.9))

    def hold_gaze(self, share: float = 1.0) -> None:
        """Keep the eyes on the viewer while the head turns."""
        zero = np.zeros(self.n)
        self.add(gaze_x=share * HOLD_X * self.channels.get("yaw", zero))
        self.add(gaze_y=share * HOLD_Y * self.channels.get("pitch", zero))

    def motion(self) -> Motion:
        """The performance as a Motion at rest in its first and last frame."""
        curves = {name: curve * self.rest_window(5) for name, curve in self.channels.items()}
        shift = np.stack([curves.pop(name, np.zeros(self.n)) for name in ("shift_x", "shift_y")], axis=1)
        grow = curves.pop("grow", np.zeros(self.n))
        for name, low, high in (("blink_left", -20, 5), ("blink_right", -20, 5), ("smile", -0.3, 1.3)):
            if name in curves:
                curves[name] = np.clip(curves[name], low, high)
        angles = np.stack([curves.get(name, np.zeros(self.n)) for name in ("pitch", "yaw", "roll")], axis=1)
        translation = np.tile(np.array(TRANSLATION), (self.n, 1))
        translation[:, :2] += SCALE * (angles @ SWAY + shift)
        edited = apply_controls(
            neutral_expression()[None], np.eye(3)[None], SCALE * (1 + grow), translation, curves
        )
        change = ratio_change(edited.expression - neutral_expression())
        return Motion(
            rotation=rounded(edited.rotation),
            expression=rounded(edited.expression),
            scale=rounded(edited.scale),
            translation=rounded(translation),
            canonical=MeshMaps.load().canonical_keypoints[None],
            eye_ratio=rounded(np.maximum(EYE_RATIO + change.eye_ratio, 0.01), 16),
            lip_ratio=rounded(np.maximum(change.lip_ratio, 0.0), 16),
            gaze=rounded(change.gaze, 16),
            fps_numerator=FPS,
            engine="library",
            ratios_estimated=True,
        )


def nod() -> Performance:
    """Yes: a breath up, three dips that grow smaller, eyes on the viewer."""
    p = Performance(2.6, seed=1)
    dips = ((5, 0), (10, -2.2), (19, 9.5), (28, -2.6), (36, 6.5), (44, -1.2), (51, 2.6), (58, 0))
    p.add(pitch=spring(keys(p.n, *dips), 5.0, 0.8))
    p.key("yaw", (6, 0), (20, -1.2), (45, 0.8), (62, 0))
    p.key("brow", (4, 0), (10, 5), (20, 1.5), (34, 2.5), (60, 0))
    p.key("smile", (8, 0), (26, 0.35), (48, 0.3), (70, 0))
    p.hold_gaze()
    p.blink(15)
    p.alive(0.6)
    return p


def shake() -> Performance:
    """No: winds up to one side, four turns that die away, brows drawn, lips firm."""
    p = Performance(2.8, seed=2)
    turns = ((4, 0), (9, 2.2), (17, -12), (27, 11.5), (37, -8.5), (46, 5), (54, -1.8), (62, 0))
    yaw = spring(keys(p.n, *turns), 5.0, 0.8)
    p.add(yaw=yaw, roll=0.16 * delay(yaw, 2))
    p.key("pitch", (4, 0), (18, 2.5), (46, 1.8), (66, 0))
    p.key("brow", (4, 0), (14, -9), (48, -7), (68, 0))
    p.key("purse", (6, 0), (16, -5), (50, -4), (70, 0))
    p.hold_gaze()
    p.blink(11)
    p.blink(58, depth=0.95)
    p.alive(0.6)
    return p


def tilt() -> Performance:
    """Head to one side with a question in the brows, held, and back."""
    p = Performance(3.4, seed=3)
    roll = spring(keys(p.n, (4, 0), (8, -1.0), (22, 11), (62, 11), (67, 11.5), (84, 0)), 3.0, 0.62)
    p.add(roll=roll, yaw=0.28 * delay(roll, 2), pitch=-0.14 * delay(roll, 3))
    p.key("brow", (5, 0), (16, 11), (30, 8), (60, 8.5), (80, 0))
    p.key("smile", (12, 0), (32, 0.4), (62, 0.45), (88, 0))
    p.hold_gaze(0.8)
    p.blink(11)
    p.blink(68)
    p.alive()
    return p


def blink() -> Performance:
    """A quick blink, a slower one and a glance in between."""
    p = Performance(3.0, seed=4)
    p.blink(15)
    p.key("gaze_x", (34, 0), (36, -5), (50, -5), (52, 0))
    p.blink(51, depth=1.0, slow=1.5)
    p.key("pitch", (14, 0), (18, 0.5), (30, 0), (49, 0), (56, 0.9), (74, 0))
    p.alive()
    return p


def wink() -> Performance:
    """The subject's right eye, with the cheek, half a smile and a lean of the head."""
    p = Performance(2.4, seed=5)
    shut = keys(p.n, (16, 0), (19, 1), (27, 1), (35, 0))
    p.add(wink=27 * shut)
    # The control drags the other eye along a little; a real winker holds it open.
    p.add(blink_left=3.5 * shut)
    p.key("smile", (10, 0), (22, 0.7), (38, 0.6), (62, 0))
    lean = spring(keys(p.n, (8, 0), (12, 0.8), (22, -5), (34, -4.5), (54, 0)), 3.5, 0.65)
    p.add(roll=lean, yaw=0.5 * delay(lean, 1), pitch=-0.45 * delay(lean, 2))
    p.key("brow", (10, 0), (15, 5), (21, -3), (30, -2), (40, 2), (58, 0))
    p.hold_gaze()
    p.alive(0.5)
    return p


def smile() -> Performance:
    """A smile that starts in the mouth, reaches the eyes, is held and fades slowly."""
    p = Performance(4.4, seed=6)
    p.key("smile", (8, 0), (12, -0.06), (30, 1.25), (38, 1.15), (62, 1.2), (84, 1.1), (122, 0))
    p.key("grin", (16, 0), (34, 5.0), (64, 4.2), (80, 3.8), (112, 0))
    squint = keys(p.n, (16, 0), (36, -2.2), (80, -1.8), (116, 0))
    p.add(blink_left=squint, blink_right=squint)
    p.key("brow", (6, 0), (20, 4), (44, 2), (84, 2), (118, 0))
    nodding = spring(keys(p.n, (8, 0), (14, 1.0), (34, -2.6), (82, -2.2), (112, 0)), 2.4, 0.65)
    p.add(pitch=nodding, roll=0.9 * delay(keys(p.n, (14, 0), (40, 3.0), (84, 2.6), (116, 0)), 2))
    p.blink(21)
    p.blink(92, slow=1.3)
    p.hold_gaze()
    p.alive()
    return p


def laugh() -> Performance:
    """Two bouts of ha-ha: jaw, head and shoulders bounce together, the eyes squeeze, a breath between."""
    p = Performance(4.6, seed=7)
    strength = keys(
        p.n, (10, 0), (20, 1), (40, 0.9), (58, 0.25), (64, 0.15), (74, 0.75), (92, 0.35), (104, 0)
    )
    frames = np.arange(p.n)
    pace = 6.3 + 0.012 * frames  # the bursts slow down
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * np.cumsum(1 / pace))
    burst = strength * beat
    p.add(
        lips_open=26 * keys(p.n, (10, 0), (18, 1), (56, 0.6), (66, 0.85), (92, 0.45), (112, 0)) + 27 * burst
    )
    p.key("smile", (6, 0), (18, 1.1), (70, 1.05), (100, 0.8), (130, 0))
    p.key("grin", (10, 0), (20, 6), (60, 4.5), (76, 5), (104, 1.5), (124, 0))
    squeeze = keys(p.n, (10, 0), (22, -7), (52, -6), (64, -3), (76, -6), (100, -1.5), (122, 0)) - 1.5 * burst
    p.add(blink_left=squeeze, blink_right=squeeze)
    p.key("brow", (6, 0), (16, 7), (60, 4), (100, 2), (124, 0))
    back = spring(keys(p.n, (6, 0), (12, 1.8), (26, -7.5), (50, -5), (64, 2), (80, -4), (108, 0)), 2.2, 0.7)
    p.add(pitch=back + 1.7 * delay(burst, 1.5), roll=p.drift(1.6, 0.7) * np.clip(strength * 1.5, 0, 1))
    p.add(shift_y=-0.008 * delay(burst, 1), yaw=p.drift(1.2, 0.6))
    p.blink(62)
    p.blink(106)
    p.alive(0.5)
    return p


# Mouth shapes of vowels: how far lips_open, purse and grin go.
VOWELS = {
    "a": (44, -3, 1),
    "e": (26, -4, 6),
    "i": (14, -4, 8.5),
    "o": (31, 9, 0),
    "u": (12, 13, 0),
    "@": (20, 0, 2),
}
# Consonants between them: lips closed, teeth on the lip, tongue only.
CONSONANTS = {"m": (-9, 0, 0), "f": (1, -5, 2), "t": (8, 0, 2.5)}
# Sounds, the frame each phrase begins at, and its stressed syllables.
PHRASES = (("m@tetamitofa", 12, {2, 4}), ("tofatitum@tetamit@ta", 76, {1, 4, 8}))
VOWEL_FRAMES, CONSONANT_FRAMES = 3.7, 3.0  # together 4.5 syllables a second


def talk() -> Performance:
    """Two phrases of about four and a half syllables a second, with stress in brows and head, and a pause."""
    p = Performance(6.0, seed=8)
    shapes: list[list[tuple[float, float]]] = [[(0.0, 0.0)] for _ in range(3)]
    for sounds, first, stressed in PHRASES:
        at, syllable = float(first), 0
        for channel in shapes:
            channel.append((at - 4, 0.0))
        for position, sound in enumerate(sounds):
            vowel = sound in VOWELS
            size = p.random.uniform(0.9, 1.1)
            if vowel:
                if syllable in stressed:
                    size *= 1.25
                    p.add(pitch=2.8 * bump(p.n, at + 2, 8, 12) - 0.8 * bump(p.n, at - 7, 6, 7))
                    p.add(brow=8.0 * bump(p.n, at, 7, 15))
                syllable += 1
            for channel, value in zip(shapes, VOWELS[sound] if vowel else CONSONANTS[sound], strict=True):
                channel.append((at, value * size))
            # Nobody speaks like a metronome, and the last syllable of a phrase is drawn out.
            drawn = 1.35 if position >= len(sounds) - 2 else 1.0
            at += (VOWEL_FRAMES if vowel else CONSONANT_FRAMES) * drawn * p.random.uniform(0.9, 1.1)
        for channel in shapes:
            channel.append((at + 3, 0.0))
    opened, pursed, grinned = (keys(p.n, *channel, (p.n - 1, 0)) for channel in shapes)
    # Lips shape a sound before the jaw opens for it.
    p.add(lips_open=soften(opened, 0.8), purse=delay(soften(pursed, 1.6), -1.5))
    p.add(grin=np.clip(delay(soften(grinned, 1.6), -1.0), 0, 15))
    p.key("yaw", (6, 0), (26, -3.2), (52, 1.0), (70, 1.6), (96, 3.6), (128, -2.2), (164, 0))
    p.key("roll", (10, 0), (40, 2.0), (72, -1.0), (110, -2.6), (140, 1.0), (166, 0))
    p.key("smile", (8, 0), (30, 0.15), (64, 0.3), (90, 0.1), (150, 0.35), (172, 0))
    p.key("gaze_x", (60, 0), (62, 6), (72, 6), (74, 0), (118, 0), (120, -4), (128, -4), (130, 0))
    for at_frame, depth in ((22, 0.95), (60, 1.0), (117, 0.95), (152, 1.0)):
        p.blink(at_frame, depth)
    p.hold_gaze()
    p.alive()
    return p


def look_around() -> Performance:
    """Image left, up to the right, and back: the eyes jump, the head follows, a blink hides each jump."""
    p = Performance(5.6, seed=9)
    wishes = ((8, 0.0, 0.0), (12, 15.0, 1.0), (56, -13.0, -4.5), (104, 3.0, 2.5), (138, 0.0, 0.0))
    at = np.arange(p.n)
    last = np.searchsorted([w[0] for w in wishes], at, side="right") - 1
    yaw_wish = np.where(last < 0, 0, np.array([w[1] for w in wishes])[last])
    pitch_wish = np.where(last < 0, 0, np.array([w[2] for w in wishes])[last])
    yaw = spring(soften(delay(yaw_wish, 6), 4.0), 1.7, 0.85)
    pitch = spring(soften(delay(pitch_wish, 7), 4.0), 1.7, 0.85)
    p.add(yaw=yaw, pitch=pitch, roll=-0.14 * delay(yaw, 2))
    # The eyes go first and further, and come back to the middle as the head arrives.
    sideways = np.clip(-0.95 * (1.35 * yaw_wish - yaw), -22, 22)
    p.add(gaze_x=soften(sideways, 0.7), gaze_y=soften(-0.9 * (1.3 * pitch_wish - pitch), 0.7))
    p.key("brow", (50, 0), (64, 6), (98, 5), (112, 0), (134, 0), (140, 2), (158, 0))
    p.key("purse", (16, 0), (30, -3), (50, -2), (70, 3), (96, 2), (120, 0))
    for blink_at in (11, 55, 103, 137):
        p.blink(blink_at, depth=0.9)
    p.alive()
    return p


def surprise() -> Performance:
    """A tiny cringe, then brows, lids and jaw fly open while the head starts back; it melts into relief."""
    p = Performance(3.6, seed=10)
    p.key("brow", (6, 0), (10, -5), (15, 29), (22, 26), (52, 23), (76, 5), (94, 0))
    wide = keys(p.n, (6, 0), (10, -8), (14, 5), (50, 4), (66, 0))
    p.add(blink_left=wide, blink_right=wide)
    p.key("gaze_y", (10, 0), (15, 9), (48, 6), (70, 0))
    p.key("lips_open", (8, 0), (11, -8), (18, 62), (24, 54), (50, 46), (66, 8), (82, 0))
    p.key("purse", (10, 0), (19, 7), (48, 6), (66, 0))
    start = spring(keys(p.n, (6, 0), (10, 2.2), (17, -6.0), (48, -4.5), (74, 0.6), (92, 0)), 3.6, 0.55)
    p.add(pitch=start, grow=0.004 * start, yaw=-0.25 * delay(start, 2))
    p.add(lips_open=p.drift(1.6, 3.0))
    p.key("smile", (54, 0), (72, 0.45), (102, 0))
    p.blink(54)
    p.alive(0.6)
    return p


PERFORMANCES: dict[str, Callable[[], Performance]] = {
    "nod": nod,
    "shake": shake,
    "tilt": tilt,
    "blink": blink,
    "wink": wink,
    "smile": smile,
    "laugh": laugh,
    "talk": talk,
    "look-around": look_around,
    "surprise": surprise,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=ROOT / "backend" / "data" / "library")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, make in PERFORMANCES.items():
        motion, path = make().motion(), output / f"{name}.npz"
        save_motion(motion, path)
        print(f"{name}: {motion.duration:.1f} s, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
