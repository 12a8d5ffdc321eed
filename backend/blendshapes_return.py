# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs of the blendshape table that read as given channels, near to a first guess.

The table of the way back is a regression, so it draws everything towards rest: a smile of 1 came back as .6.
Here each frame is moved by the least that makes the forward map read its channels: the minimum of
|change / spread|^2 + trust * sum of (channel as read - channel as given)^2. A channel that is given as 0 or 1
was clamped, so what reads as less than 0 or more than 1 is right, as it is by degrees near them; and no ratio
falls below 0.

What the forward map itself has read needs a small change and is trusted nearly fully. The channels of another
program's recording no face of ours may have at once: fully trusted, they would bend the keypoints far out. So
full trust goes as far as REACH, and beyond it there is LITTLE. Both minima and what is chosen between them
depend on the channels without jumps, so a smooth recording stays smooth. docs/blendshapes.md has the figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Trust: what an error of 1 in a channel weighs against an input that moves by its usual spread.
FULL, LITTLE = 1000.0, 3.0
REACH = 3.2  # length of the change, in spreads: own channels of clips need .1 to 3, others 6 to 17
#: So near to 0 (or 1) the trust in a channel that is read as less (or more) goes down to none, by its cube.
NEAR = 0.1
_HARD = 1e6  # of a bound that holds whatever else
_NONE = 1e-9  # a weight that is none
_ROUNDS = 40  # 4 to 12 are needed
_CHUNK = 4096  # frames at once


def reading_as(
    guess: Floats, wanted: Floats, coefficients: Floats, offset: Floats, spread: Floats, least: Floats
) -> Floats:
    """(n,m) inputs near `guess` (n,m) of which clip(inputs @ coefficients.T + offset) is near `wanted` (n,c).

    coefficients (c,m), offset (c,); spread (m,) > 0: how far each input usually moves; least (m,): lower
    bounds, -inf for none.
    """
    bounded = np.flatnonzero(np.isfinite(least))
    rows = np.concatenate([coefficients, np.eye(len(spread))[bounded]]) * spread
    found = np.empty_like(guess)
    for first in range(0, len(guess), _CHUNK):
        part = slice(first, first + _CHUNK)
        given, limit = wanted[part], np.broadcast_to(least[bounded], (len(guess[part]), len(bounded)))
        target = np.concatenate([given - offset, limit], axis=1)
        read = guess[part] / spread @ rows.T
        below = np.minimum(given / NEAR, 1.0) ** 3
        above = np.minimum((1.0 - given) / NEAR, 1.0) ** 3
        little, full = (
            _least_change(
                read,
                target,
                rows,
                np.concatenate([trust * below, np.full(limit.shape, _HARD)], axis=1),
                np.concatenate([trust * above, np.zeros(limit.shape)], axis=1),
            )
            for trust in (LITTLE, FULL)
        )
        change = little + _share(little, full)[:, None] * (full - little)
        found[part] = np.maximum(guess[part] + change * spread, least)
    return found


def _share(little: Floats, full: Floats) -> Floats:
    """(n,) the largest share, 0 to 1, of the way from one change to the other that is within REACH."""
    way = full - little
    a, b = (way**2).sum(axis=1), (little * way).sum(axis=1)
    c = (little**2).sum(axis=1) - REACH**2
    root = np.sqrt(np.maximum(b * b - a * c, 0.0))
    share = np.divide(root - b, a, out=np.ones_like(a), where=a > 1e-12)
    return np.where(c < 0.0, np.clip(share, 0.0, 1.0), 0.0)


def _least_change(read: Floats, target: Floats, rows: Floats, below: Floats, above: Floats) -> Floats:
    """(n,m) in spreads. read, target (n,r): what rows (r,m) read of the guess, and should; below, above
    (n,r): what an error weighs where less, or more, is read. On which side each row comes to lie is found in
    rounds."""
    n, (r, m) = len(read), rows.shape
    gram = rows @ rows.T
    change = np.zeros((n, m))
    less = np.zeros((n, r), np.bool_)
    frames: NDArray[np.intp] = np.arange(n)
    for number in range(_ROUNDS):
        now = read[frames] + change[frames] @ rows.T < target[frames]
        if number:  # a frame whose rows lie where they were thought to lie is done
            moved = (now != less[frames]).any(axis=1)
            frames, now = frames[moved], now[moved]
        if not len(frames):
            break
        less[frames] = now
        weight = np.where(now, below[frames], above[frames])
        part = weight > _NONE
        matrix = np.where(part[:, :, None] & part[:, None, :], gram, 0.0)
        matrix[:, range(r), range(r)] += 1.0 / np.where(part, weight, 1.0)
        missing = np.where(part, target[frames] - read[frames], 0.0)
        change[frames] = np.linalg.solve(matrix, missing[..., None])[..., 0] @ rows
    return change
