# SPDX-License-Identifier: GPL-3.0-or-later
"""F, M, W and G compute what the released networks do, and their forms for the CPU compute the same.

See networks_oracle.py for what was recorded.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.backend import generated_weights as weights

torch = pytest.importorskip("torch", reason="the networks need torch, which is not in this environment")

import torch.nn.functional as F  # noqa: E402

from backend.networks.cpu_generator import CpuGenerator  # noqa: E402
from backend.networks.cpu_warping import CpuWarping  # noqa: E402
from backend.networks.motion import degrees  # noqa: E402
from backend.networks.warping import (  # noqa: E402
    coordinate_grid,
    gaussians,
    hourglass_input,
    move,
    propose,
)
from tests.backend.networks_oracle import (  # noqa: E402
    NETWORKS,
    ORACLE,
    error,
    generator_input,
    network,
    pictures,
    warping_input,
)


@cache
def cpu_warping() -> CpuWarping:
    return CpuWarping(network("warping_module"))


@cache
def cpu_generator() -> CpuGenerator:
    return CpuGenerator(network("spade_generator"))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_released_keys(name: str) -> None:
    with torch.device("meta"):
        state = NETWORKS[name]().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == weights.released_keys()[name]


@pytest.mark.slow
def test_appearance_is_the_released_one() -> None:
    volume = network("appearance_feature_extractor")(pictures())
    kept = volume[:, :, ::3, ::5, ::5]
    assert error(kept[:1], ORACLE["F.out0"]) < 1e-4
    assert error(kept[1:, ::2], ORACLE["F.out12"]) < 1e-4


@pytest.mark.slow
def test_motion_is_the_released_one() -> None:
    heads = network("motion_extractor")(pictures())
    for head in ("pitch", "yaw", "roll", "t", "exp", "kp"):
        assert error(heads[head], ORACLE[f"M.{head}"]) < 5e-4, head
    assert error(heads["scale"], ORACLE["M.scale"]) < 5e-4
    for angle in ("pitch", "yaw", "roll"):
        np.testing.assert_allclose(degrees(heads[angle]), ORACLE[f"M.{angle}_deg"][:, 0], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("item", [0, 1])
def test_warping_is_the_released_one(item: int) -> None:
    volume, source, driving = warping_input(item)
    module = network("warping_module")
    deformation, occlusion = module.dense_motion_network(volume, source, driving)
    assert error(deformation[:, ::3, ::3, ::3], ORACLE[f"W{item}.deformation"]) < 1e-4
    assert error(occlusion, ORACLE[f"W{item}.occlusion_map"]) < 1e-3
    features = module(volume, source, driving)
    assert error(features[:, :, ::5, ::5], ORACLE[f"W{item}.out"]) < 1e-3
    mean, std = ORACLE["W.out_chan_mean"][item], ORACLE["W.out_chan_std"][item]
    assert error(features.mean(dim=(0, 2, 3)), mean) < 1e-3
    assert error(features.std(dim=(0, 2, 3)), std) < 1e-3


@pytest.mark.slow
def test_the_steps_of_warping_are_the_released_ones() -> None:
    """Proposals, Gaussians and the mixture, at every fifth voxel, of every fourth keypoint."""
    volume, source, driving = warping_input(0)
    dense = network("warping_module").dense_motion_network
    grid = coordinate_grid(volume.shape[2:], source)
    proposals = propose(grid, source, driving)
    assert error(proposals[:, ::4, ::5, ::5, ::5], ORACLE["W0.sparse_motion"]) < 1e-4
    bumps = gaussians(driving, grid) - gaussians(source, grid)
    padded = F.pad(bumps, (0, 0, 0, 0, 0, 0, 1, 0))
    assert error(padded[:, ::4, None, ::5, ::5, ::5], ORACLE["W0.heatmap"]) < 1e-4
    compressed = F.relu(dense.norm(dense.compress(volume)))
    mixed = dense.hourglass(hourglass_input(bumps, move(compressed, proposals)))
    mixture = dense.mask(mixed).softmax(dim=1)
    assert error(mixture[:, ::4, ::5, ::5, ::5], ORACLE["W0.mask"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("item", [0, 1])
def test_warping_on_the_cpu_is_the_released_one(item: int) -> None:
    volume, source, driving = warping_input(item)
    warping = cpu_warping()
    state = warping.prepare(volume, source)
    deformation, occlusion = warping.motion(state, driving[0])
    assert error(deformation[None, ::3, ::3, ::3], ORACLE[f"W{item}.deformation"]) < 1e-4
    assert error(occlusion, ORACLE[f"W{item}.occlusion_map"]) < 1e-3
    features = warping.run(state, driving)
    assert error(features[:, :, ::5, ::5], ORACLE[f"W{item}.out"]) < 1e-3
    if item == 0:
        assert error(cpu_generator()(features)[:, :, ::5, ::5], ORACLE["G_of_W0.out"]) < 2e-3


@pytest.mark.slow
def test_warping_at_rest_is_the_released_one() -> None:
    """Not the identity: the grid's ends are voxels' middles for the keypoints and their borders for the
    sampler.
    """
    volume, source, _ = warping_input(0)
    wanted = ORACLE["W_id.out"]
    assert error(network("warping_module")(volume, source, source)[:, ::2, ::5, ::5], wanted) < 1e-3
    warping = cpu_warping()
    assert error(warping.run(warping.prepare(volume, source), source)[:, ::2, ::5, ::5], wanted) < 1e-3


@pytest.mark.slow
def test_warping_keeps_sources_and_frames_apart() -> None:
    """Buffers are used again, by the next frame and by the next source."""
    warping = cpu_warping()
    (one, source_one, driving_one), (two, source_two, driving_two) = warping_input(0), warping_input(1)
    first, second = warping.prepare(one, source_one), warping.prepare(two, source_two)
    alone = warping.run(first, driving_one)
    warping.run(second, driving_two)
    both = warping.run(first, torch.cat([driving_two, driving_one]))
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[:1], alone)


@pytest.mark.slow
def test_generator_is_the_released_one() -> None:
    features = generator_input()
    plain = network("spade_generator")(features)
    assert error(plain[:, :, ::5, ::5], ORACLE["G.out"]) < 1e-3
    assert error(F.avg_pool2d(plain, 16), ORACLE["G.block16"]) < 1e-3
    np.testing.assert_allclose(plain.mean(dim=(2, 3)), ORACLE["G.chan_mean"], atol=1e-4)
    np.testing.assert_allclose(plain.std(dim=(2, 3)), ORACLE["G.chan_std"], atol=1e-4)
    fast = cpu_generator()
    pair = fast(torch.cat([-features, features]))
    assert error(pair[1:], plain) < 1e-3
    assert torch.equal(pair[1:], fast(features))


@pytest.mark.slow
def test_a_picture_goes_the_whole_way() -> None:
    """F, W and G one after another on a picture, to the released program's frame within one level."""
    volume = network("appearance_feature_extractor")(pictures()[:1])
    source, driving = torch.from_numpy(ORACLE["M.x_s"][:1]), torch.from_numpy(ORACLE["chain.x_d"])
    plain = network("spade_generator")(network("warping_module")(volume, source, driving))
    warping = cpu_warping()
    fast = cpu_generator()(warping.run(warping.prepare(volume, source), driving))
    for picture in (plain, fast):
        kept = picture[:, :, ::5, ::5]
        assert error(kept, ORACLE["chain.out"]) < 2e-3
        levels = (kept * 255).to(torch.uint8).numpy().astype(int)  # the released program truncates
        assert np.abs(levels - ORACLE["chain.out_uint8"]).max() <= 1
