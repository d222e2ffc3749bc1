"""Two and four processes share a step of the real LightX2V, with its own blocks and with ours, against one."""

import multiprocessing
import os
import traceback

import pytest

SIZE = (48, 48, 5)  # 18 tokens, which four do not divide


def rank(number, size, folder, answers):
    import torch

    from tests.lightx2v.cpu import Absent, be_a_platform

    torch.set_num_threads(1)
    try:
        answers.put((number, steps(number, size, folder, Absent, be_a_platform)))
    except BaseException:
        answers.put((number, traceback.format_exc()))


def steps(number, size, folder, absent, be_a_platform):
    """The velocities of both experts, by upstream's blocks and by the fused ones."""
    import sys

    import diffusers  # noqa: F401 - they look for torchvision themselves: before it is mocked
    import torch
    import torch._inductor.runtime.triton_heuristics
    import torch.utils.flop_counter
    import transformers  # noqa: F401
    import triton.language  # noqa: F401

    from wan_ui import settings as settings_module
    from wan_ui.catalog import load_catalog
    from wan_ui.engines import group, lightx2v_config
    from wan_ui.engines.lightx2v_upstream import import_lightx2v
    from wan_ui.machine.hardware import measure

    if size > 1:
        group.join(number, size, folder / "meeting")
    values = {name: value for name, value in os.environ.items() if name.startswith("WAN_UI_")}
    settings = settings_module.load_settings(values | {"WAN_UI_LIGHTX2V_ATTENTION": "torch_sdpa"})
    settings_module.use(settings)
    sys.meta_path.append(absent())
    if settings.lightx2v_path:
        sys.path.insert(0, settings.lightx2v_path)
    be_a_platform()
    import_lightx2v(lightx2v_config.environment(settings, measure()))
    from lightx2v.models.input_encoders.hf.wan.t5.model import T5EncoderModel
    from lightx2v.utils import envs

    upstream = T5EncoderModel.__init__
    envs.DTYPE_MAP["BF16"] = torch.float32
    T5EncoderModel.__init__ = lambda self, *args, **kwargs: upstream(self, *args, **{**kwargs, "dtype": torch.float32})
    envs.GET_DTYPE.cache_clear()
    envs.GET_SENSITIVE_DTYPE.cache_clear()

    from wan_ui.engines.lightx2v import LightX2VEngine
    from wan_ui.engines.lightx2v_blocks import FusedBlocks

    model = load_catalog(settings.catalog)["wan-tiny"]
    engine = LightX2VEngine()
    engine.load(model, model.scheme("bf16"), lambda progress: None)
    generator, config = torch.Generator().manual_seed(0), engine.runner.config
    latents = torch.randn(model.family.vae.latents(*SIZE), generator=generator)
    condition = torch.randn(model.family.condition_shape(*SIZE), generator=generator)
    prompt = torch.randn(config["text_len"], config["text_dim"], generator=generator)
    engine.set_size(*SIZE)
    engine.plan(2)
    made = []
    for blocks in (list, FusedBlocks):
        blocks([part.transformer_infer for part in engine.transformers])
        made += [engine.predict(latents, sigma, expert, prompt, condition) for sigma, expert in ((1.0, 0), (0.5, 1))]
    return torch.stack(made).numpy()


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_predict_what_one_does(lightx2v, size, tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.setenv("PLATFORM", "cpu")
    monkeypatch.setenv("SKIP_PLATFORM_CHECK", "1")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    places = [(0, 1), *((number, size) for number in range(size))]
    processes = [
        context.Process(target=rank, args=(number, of, tmp_path, answers), daemon=True) for number, of in places
    ]
    for process in processes:
        process.start()
    try:
        made = [answers.get(timeout=600) for _ in processes]
    finally:
        for process in processes:
            process.kill()
    for _, found in made:
        assert not isinstance(found, str), found
        for step, expected in zip(found, made[0][1], strict=True):
            assert np.linalg.norm(step - expected) < 1e-5 * np.linalg.norm(expected)
