# SPDX-License-Identifier: GPL-3.0-or-later
"""S, R_eye and R_lip: the small networks that stitch shoulders and open eyes and lips.

Each is a plain perceptron with the released keys (`mlp.0.weight` ...). Keypoints are in crop coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from backend.networks.checkpoints import fill

KEYPOINTS = 21
COORDINATES = 3 * KEYPOINTS
STITCHING_SIZES = (2 * COORDINATES, 128, 128, 64, COORDINATES + 2)  # released src/config/models.yaml
EYE_SIZES = (COORDINATES + 3, 256, 256, 128, 128, 64, COORDINATES)
LIP_SIZES = (COORDINATES + 2, 128, 128, 64, COORDINATES)
SIZES = {"retarget_shoulder": STITCHING_SIZES, "retarget_mouth": LIP_SIZES, "retarget_eye": EYE_SIZES}
"""The parts of the released file stitching_retargeting_module and the width of their layers."""


class Perceptron(nn.Module):
    """Linear layers of the given widths with ReLU between them: (n, sizes[0]) -> (n, sizes[-1])."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, following in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(width, following), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        return self.mlp(features)


class Retargeting:
    """The three networks behind the calls that `backend.retargeting` makes: numpy in, float32 numpy out."""

    def run(self, part: str, features: np.ndarray) -> np.ndarray:
        """A network of SIZES on features (n, its width)."""
        raise NotImplementedError

    def stitch(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        """x_s and x_d (n,21,3) -> x_d (n,21,3) whose shoulders meet the source's."""
        n = len(driving)
        out = self._run("retarget_shoulder", source.reshape(n, -1), driving.reshape(n, -1))
        stitched = driving + out[:, :COORDINATES].reshape(n, KEYPOINTS, 3)
        stitched[..., :2] += out[:, None, COORDINATES:]
        return stitched

    def retarget_eyes(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """x_s (n,21,3) and [image-left, image-right, target] (n,3) -> change of the keypoints (n,21,3)."""
        return self._run("retarget_eye", source.reshape(len(source), -1), ratios).reshape(-1, KEYPOINTS, 3)

    def retarget_lips(self, source: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """x_s (n,21,3) and [present, target] (n,2) -> change of the keypoints (n,21,3)."""
        return self._run("retarget_mouth", source.reshape(len(source), -1), ratios).reshape(-1, KEYPOINTS, 3)

    def _run(self, part: str, *features: np.ndarray) -> np.ndarray:
        return self.run(part, np.concatenate(features, axis=1).astype(np.float32, copy=False))


class RetargetingNetworks(Retargeting):
    """In PyTorch. They stay in fp32 on every device, as in the released program."""

    def __init__(
        self, states: Mapping[str, Mapping[str, Tensor]], device: str | torch.device = "cpu"
    ) -> None:
        """states: the state dicts of retarget_shoulder, retarget_mouth and retarget_eye.

        Raises EngineError when a part or key is missing or has another shape.
        """
        self.device = torch.device(device)
        self._networks: dict[str, nn.Module] = {}
        for part, sizes in SIZES.items():
            with torch.device("meta"):
                network: nn.Module = Perceptron(sizes)
            network = network.to_empty(device=self.device)
            self._networks[part] = fill(network, states.get(part, {}), part)

    def run(self, part: str, features: np.ndarray) -> np.ndarray:
        """See Retargeting."""
        with torch.inference_mode():
            return self._networks[part](torch.from_numpy(features).to(self.device)).cpu().numpy()
