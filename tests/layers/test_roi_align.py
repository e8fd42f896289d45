"""RoIAlign as an embedding bag beside torchvision's kernel."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align as reference

from sparsedet.layers.roi_align import roi_align


def boxes(count: int, images: int, seed: int = 0) -> torch.Tensor:
    """Of all sizes, some outside the picture of 160 x 224, some upside down."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([260.0, 190.0]) - 15
    sizes = torch.exp(torch.randn(count, 2, generator=generator) * 1.2 + 3)
    image = torch.randint(images, (count, 1), generator=generator).float()
    rois = torch.cat([image, centres - sizes / 2, centres + sizes / 2], dim=1)
    rois[0, 1:] = torch.tensor([50.0, 60.0, 20.0, 30.0])
    rois[1, 1:] = torch.tensor([50.0, 60.0, 50.0, 60.0])
    rois[2, 1:] = torch.tensor([-900.0, -900.0, -800.0, -800.0])
    return rois


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (3, 5)])
def test_equals_the_kernel(size, ratio, aligned, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 20, 28).to(memory_format=layout)
    rois = boxes(60, images=2)
    expected = reference(x, rois, size, 1 / 8, ratio, aligned)
    torch.testing.assert_close(
        roi_align(x, rois, size, 1 / 8, ratio, aligned), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("count", [0, 1])
def test_no_box_and_one(count, ratio):
    x = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0.0, 3.0, 4.0, 50.0, 60.0]])[:count]
    found = roi_align(x, rois, (7, 7), 1 / 8, ratio, True)
    torch.testing.assert_close(found, reference(x, rois, (7, 7), 1 / 8, ratio, True))


def test_a_map_of_one_pixel():
    x = torch.ones(1, 3, 1, 1)
    rois = torch.tensor([[0.0, -4.0, -4.0, 12.0, 12.0], [0.0, 0.0, 0.0, 8.0, 8.0]])
    for ratio in (0, 2):
        expected = reference(x, rois, (2, 2), 1 / 8, ratio, True)
        torch.testing.assert_close(roi_align(x, rois, (2, 2), 1 / 8, ratio, True), expected)
