"""RoI poolers of the optimized copy beside detectron2's own."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import nn

from sparsedet.exporting.pooling import pool_by_sums_


def boxes(count: int, seed: int) -> Boxes:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 400
    sizes = torch.exp(torch.randn(count, 2, generator=generator) * 1.5 + 4)
    return Boxes(torch.cat([corners, corners + sizes], dim=1))


@pytest.mark.parametrize("counts", [(40, 30), (1, 0), (0, 0)])
@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("levels", [1, 4])
def test_every_level_and_image(levels, ratio, kind, counts):
    scales = [1 / 16] if levels == 1 else [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    pooler = ROIPooler(7, scales, ratio, kind)
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, 6, int(512 * s), int(512 * s), generator=generator).to(
            memory_format=torch.channels_last
        )
        for s in scales
    ]
    box_lists = [boxes(count, seed) for seed, count in enumerate(counts)]
    expected = pooler(maps, box_lists)
    fast = nn.Sequential(pooler)
    pool_by_sums_(fast)
    found = fast[0](maps, box_lists)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_other_poolers_stay_as_they_are():
    pooler = ROIPooler(7, [1 / 16], 0, "ROIPool")
    pool_by_sums_(pooler)
    assert type(pooler) is ROIPooler


def test_other_types_run_the_kernel():
    pooler = ROIPooler(3, [1 / 8], 0, "ROIAlignV2")
    pool_by_sums_(pooler)
    x = torch.rand(1, 2, 8, 8, dtype=torch.double)
    assert pooler([x], [boxes(3, 0)]).dtype == torch.double
