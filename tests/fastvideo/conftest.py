"""The real FastVideo on a CPU: what its imports lack here is mocked, and its attention is torch's.

Skipped, with the reason, unless WAN_UI_FASTVIDEO_PATH points to a checkout of hao-ai-lab/FastVideo or the package is
installed. A checkout that is named must work.
"""

import importlib.util
import json
import os
import sys

import pytest

from tests.lightx2v import cpu

TEXT_LENGTH = 512  # tokens: it pads every prompt to as many

ABSENT = ("cloudpickle", "decord", "flashinfer", "remote_pdb", "torchaudio", "torchvision", "triton")
CHECKOUT = os.environ.pop("WAN_UI_FASTVIDEO_PATH", "")  # no setting of Wan UI, which refuses what it does not know
COMMIT = "2f3d4074064e4d86f99dc784ebbaa296e6f5925f"  # what these tests were written for and have passed with


def cpu_device():
    import torch

    return torch.device("cpu")


@pytest.fixture(scope="session")
def fastvideo(tmp_path_factory):
    """The package, with one process as its group and scaled_dot_product_attention as its attention."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("runs on the CPU: set CUDA_VISIBLE_DEVICES to nothing")
    path = CHECKOUT
    if not path and importlib.util.find_spec("fastvideo") is None:
        pytest.skip("FastVideo is not installed, and WAN_UI_FASTVIDEO_PATH names no checkout of it")
    import diffusers  # noqa: F401 - look for torchvision themselves: before it is mocked
    import torch._inductor.runtime.triton_heuristics
    import torch.utils.flop_counter
    import transformers  # noqa: F401

    if path:
        sys.path.insert(0, path)
    finder = cpu.Absent(ABSENT)
    sys.meta_path.append(finder)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(20_000 + os.getpid() % 20_000))
    try:
        import fastvideo
        from fastvideo.distributed import maybe_init_distributed_environment_and_model_parallel, parallel_state
        from fastvideo.platforms import current_platform

        # What is no CUDA is MPS to it; its code is replaced, since others hold the function by name.
        parallel_state.get_local_torch_device.__code__ = cpu_device.__code__
        maybe_init_distributed_environment_and_model_parallel(1, 1)
    except Exception as error:
        if path:
            pytest.fail(f"WAN_UI_FASTVIDEO_PATH={path}: FastVideo cannot be imported: {error}", pytrace=False)
        pytest.skip(f"FastVideo cannot be imported: {error}")
    # Its CPU platform names no attention at all.
    sdpa = "fastvideo.attention.backends.sdpa.SDPABackend"
    type(current_platform).get_attn_backend_cls = classmethod(lambda cls, *args, **options: sdpa)
    torch.set_default_dtype(torch.float32)
    yield fastvideo
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.meta_path.remove(finder)


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """A random tiny Wan2.1 in the official layout."""
    import torch
    from diffusers import AutoencoderKLWan

    from tests.engines import random_models
    from wan_ui.files.names import inverse, rename, vae_name_map

    root = tmp_path_factory.mktemp("models") / "random" / "official"
    root.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random_models.write_tokenizer(root / "google/umt5-xxl")
        random_models.write_text_encoder(root / "models_t5_umt5-xxl-enc-bf16.pth", 64)
        config = random_models.write_dit(root / "diffusion_pytorch_model.safetensors", 16, 16)
        config |= {"model_type": "t2v", "text_len": TEXT_LENGTH}
        (root / "config.json").write_text(json.dumps(config))
        model = random_models.randomised(AutoencoderKLWan(base_dim=8, dim_mult=[1, 2, 2, 2], num_res_blocks=1))
        torch.save(rename(model.state_dict(), inverse(vae_name_map(4, 1))), root / "Wan2.1_VAE.pth")
    return root


@pytest.fixture(scope="session")
def folder(official):
    """The same, converted into the Diffusers folder that FastVideo reads."""
    from wan_ui.files import convert

    target = official.with_name("diffusers")
    convert.write(convert.plan(official, "diffusers"), target, lambda *progress: None)
    return target
