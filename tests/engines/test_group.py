"""Ranks of a group, as processes over gloo: what they make together is what one makes alone."""

import multiprocessing
import traceback
from dataclasses import replace

import pytest

from wan_ui.catalog import load_catalog
from wan_ui.engines.group import Group
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.settings import load_settings

HEADS, TOKENS = 8, 45  # no number of ranks divides them


def run(work, size, folder):
    """`work(group)` in as many processes, forked from one that has imported torch. Fails with what one has raised."""
    context = multiprocessing.get_context("forkserver")
    # torch.distributed imports torch._dynamo, and this file pytest: in every process, were they not there before.
    known = ["wan_ui.engines.wan_classes", "wan_ui.engines.cpu_blocks", "torch._dynamo", "pytest"]
    context.set_forkserver_preload(known)
    answers = context.Queue()
    processes = [
        context.Process(target=rank, args=(work, number, size, folder / "meeting", answers), daemon=True)
        for number in range(size)
    ]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            assert not (words := answers.get(timeout=300)), words
    finally:
        for process in processes:
            process.kill()


def rank(work, number, size, meeting, answers):
    import torch

    from wan_ui.engines import group

    torch.set_num_threads(1)
    try:
        work(group.join(number, size, meeting))
        answers.put("")
    except BaseException:
        answers.put(traceback.format_exc())


def exchanges(group):
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(TOKENS, HEADS, 4, generator=generator) for _ in range(3))

    def attend(*parts):
        return F.scaled_dot_product_attention(*(part.transpose(0, 1) for part in parts)).transpose(0, 1).flatten(1)

    group.begin(TOKENS)
    own = group.attend(attend, *(group.share(part) for part in (q, k, v)))
    torch.testing.assert_close(group.whole(own, TOKENS), attend(q, k, v), atol=1e-6, rtol=0)
    assert torch.equal(group.whole(group.share(q, 1), HEADS, 1), q)
    assert group.least(10 + group.rank) == 10


def transformers(group):
    import torch

    from wan_ui.engines import cpu_blocks, diffusers_parallel
    from wan_ui.engines.wan_classes import WanTransformer3DModel

    torch.manual_seed(1)
    model = WanTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=8, freq_dim=16,
        ffn_dim=32, num_layers=2,
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    cpu_blocks.prepare(model)
    latents, prompts = torch.randn(2, 4, 3, 6, 10), torch.randn(2, 6, 8)  # 3 * 3 * 5 tokens
    times = {"one for all": torch.full((2,), 500.0), "one each": torch.rand(2, TOKENS) * 1000}
    with torch.inference_mode():
        alone = {name: model(latents, time, prompts, return_dict=False)[0] for name, time in times.items()}
        diffusers_parallel.prepare(model, group)
        for name, time in times.items():
            with diffusers_parallel.shared(model, group):
                together = model(latents, time, prompts, return_dict=False)[0]
            torch.testing.assert_close(together, alone[name], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_attention_of_all_tokens(size, tmp_path):
    run(exchanges, size, tmp_path)


@pytest.mark.parametrize("size", [2, 8])
def test_a_transformer_predicts_what_it_does_alone(size, tmp_path):
    run(transformers, size, tmp_path)


def test_what_ranks_cannot_share_is_refused_by_name(monkeypatch):
    from wan_ui.engines import group
    from wan_ui.engines.diffusers import DiffusersEngine

    models = load_catalog(load_settings({}).catalog)
    Group(0, 8).check(models["i2v-a14b"], 40)
    with pytest.raises(UserError, match=r"WAN_UI_PARALLEL=3: .* 40 attention heads.* choose one of 1, 2, 4, 5, 8, 10"):
        Group(0, 3).check(models["i2v-a14b"], 40)
    tiny = models["wan-tiny"]
    monkeypatch.setattr(group, "_here", Group(1, 3))
    with pytest.raises(UserError, match=r"WAN_UI_PARALLEL=3: .* 4 attention heads.*choose one of 1, 2, 4"):
        DiffusersEngine().check(tiny, tiny.scheme(""))
    spoken = replace(tiny, family=next(family for family in FAMILIES.values() if family.speech))
    with pytest.raises(UserError, match=r"WAN_UI_PARALLEL=2: clips of Wan-Tiny.* are made by one GPU"):
        Group(0, 2).check(spoken, 40)
