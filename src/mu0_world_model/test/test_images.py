"""Reading feature maps at keypoints."""

import pytest
import torch

from mu0_world_model.images import read_at


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maps_are_read_alike_however_they_lie_in_memory(dtype):
    """DINOv2's maps have their channels last in memory."""
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 9 * 9, 48, generator=g).to(dtype).transpose(1, 2).unflatten(2, (9, 9))
    uv = torch.rand(2, 64, 2, generator=g) * 1.8 - 0.9
    valid = torch.rand(2, 64, generator=g) < 0.8
    read = read_at(maps, uv, valid)
    assert read.dtype == torch.float32 and read.shape == (2, 64, 48)
    torch.testing.assert_close(read, read_at(maps.contiguous(), uv, valid))
    assert read.abs().max() <= maps.abs().max() and not read[~valid].any()


def test_a_patch_s_centre_reads_that_patch():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    uv = torch.tensor([[[-0.75, -0.75], [0.25, -0.25], [1.0, 1.0]]])
    read = read_at(maps, uv, torch.ones(1, 3, dtype=torch.bool))[0, :, 0]
    torch.testing.assert_close(
        read, torch.tensor([0.0, 6.0, 15.0 / 4])
    )  # the rim fades, as released
