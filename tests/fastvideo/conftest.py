"""The real FastVideo on a CPU: what its imports lack here is mocked, and its attention is torch's.

Skipped, with the reason, unless WAN_UI_FASTVIDEO_PATH points to a checkout of hao-ai-lab/FastVideo or the package is
installed. A checkout that is named must work.
"""

import importlib.util
import os
import sys

import pytest

from tests.lightx2v import cpu

ABSENT = ("cloudpickle", "decord", "flashinfer", "remote_pdb", "torchaudio", "torchvision", "triton")
CHECKOUT = os.environ.pop("WAN_UI_FASTVIDEO_PATH", "")  # no setting of Wan UI, which refuses what it does not know
COMMIT = "2f3d4074064e4d86f99dc784ebbaa296e6f5925f"  # what these tests were written for and have passed with


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
        from fastvideo.distributed import maybe_init_distributed_environment_and_model_parallel
        from fastvideo.platforms import current_platform

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
