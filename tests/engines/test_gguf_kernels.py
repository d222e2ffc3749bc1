"""The kernel that dequantises GGUF blocks, against the gguf package; without a GPU in Triton's interpreter."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants

from tests.engines.interpreter import DEVICE
from wan_ui.engines import gguf_kernels

HALVES = {  # where a block keeps numbers in fp16: of random bytes some would be none
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}


def random_blocks(kind, rows, columns):
    """Every level, scale and offset that a block can hold comes up."""
    block, size = gguf_kernels.TYPES[kind]
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    for at in HALVES[kind]:
        blocks[:, at : at + 2] = random.normal(0, 0.1, (len(blocks), 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("kind", gguf_kernels.TYPES)
def test_numbers_of_every_type(kind):
    blocks = random_blocks(kind, 5, 512)
    expected = quants.dequantize(blocks, GGMLQuantizationType[kind])
    found = gguf_kernels.dequantise(torch.from_numpy(blocks).to(DEVICE), kind, (5, 512), torch.float32)
    assert expected.std() > 0.1 and found.shape == (5, 512)
    np.testing.assert_allclose(found.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_other_bytes_than_the_shape_needs():
    blocks = torch.from_numpy(random_blocks("Q4_K", 4, 256)).to(DEVICE)
    with pytest.raises(ValueError, match=r"no \(4, 512\)"):
        gguf_kernels.dequantise(blocks, "Q4_K", (4, 512), torch.float32)
