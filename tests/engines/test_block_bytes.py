"""How much a pass takes, worked out from shapes, against what torch allocates in one."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from wan_ui.engines.device import block_bytes
from wan_ui.engines.wan_classes import WanTransformer3DModel

HEADS, HEAD = 4, 64


class Allocated(TorchDispatchMode):
    """Bytes of all that is made within it, but for `weights` and what shares their memory, and the most at a time."""

    def __init__(self, weights):
        super().__init__()
        self.weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self.held, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self.held and storage.data_ptr() not in self.weights:
                    self.held[id(storage)] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, id(storage), None)
        self.most = max(self.most, sum(self.held.values()))
        return result


@pytest.mark.parametrize("ffn", [256, 2048])
@pytest.mark.parametrize("each_its_time", [False, True])
@torch.no_grad()
def test_a_pass_takes_what_its_shapes_say(ffn, each_its_time):
    model = WanTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=HEAD, in_channels=16, out_channels=16, text_dim=32, freq_dim=32,
        ffn_dim=ffn, num_layers=2,
    ).to(torch.bfloat16)  # fmt: skip
    frames, height, width = 5, 32, 48
    tokens = frames * height * width // 4
    times = torch.full((2, tokens) if each_its_time else (2,), 500.0)
    latents = torch.zeros(2, 16, frames, height, width, dtype=torch.bfloat16)
    text = torch.zeros(2, 16, 32, dtype=torch.bfloat16)
    with Allocated(model.parameters()) as allocated:
        model(hidden_states=latents, timestep=times, encoder_hidden_states=text, return_dict=False)
    said = 2 * block_bytes(tokens, HEADS * HEAD, ffn, 2, each_its_time=each_its_time)
    assert said * 0.8 < allocated.most < said * 1.1, f"{allocated.most / said:.2f}"
