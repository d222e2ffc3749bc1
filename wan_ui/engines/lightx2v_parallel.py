"""LightX2V in a group of ranks: its own sequence parallelism, with our exchange between its halves.

Upstream splits the tokens before the blocks, turns the rotary table's rows to a rank's own, and joins the tokens after
the head. Three things are ours: the padding is hidden from attention (upstream lets all tokens look at it), a timestep
that all tokens share stays whole (upstream gives ranks other than the first zeros for it), and the heads of v travel
while k and q are still computed. The kernel of attention is whatever was chosen for one GPU; a draft's e4m3 as well.
"""

from dataclasses import replace
from typing import Any

import torch

from wan_ui.catalog import Model
from wan_ui.engines.group import Group
from wan_ui.engines.lightx2v_config import Choices
from wan_ui.engines.lightx2v_seams import put
from wan_ui.machine.shapes import shape_of
from wan_ui.settings import Settings, split_names


def settings_for(settings: Settings, group: Group) -> Settings:
    """Exchanges are neither compiled nor captured."""
    if group.size == 1:
        return settings
    plain = ",".join(dict.fromkeys((*split_names(settings.lightx2v_plain), "graphs")))
    return replace(settings, lightx2v_compile="off", lightx2v_plain=plain)


def choices_for(choices: Choices, model: Model, group: Group) -> Choices:
    """With what upstream's configuration is told of the group. Raises UserError where the heads cannot be shared."""
    if group.size == 1:
        return choices
    heads = shape_of(model, *model.sizes[0], model.default_frames).heads
    group.check(model, heads)
    values = {"parallel": {"seq_p_size": group.size, "seq_p_attn_type": "ulysses", "vae_parallel": False}}
    words = {
        "parallel": f"{group.size} GPUs: each {heads // group.size} heads of attention, "
        "a share of the tokens and a strip of the frames",
        "compile": "off (exchanges between GPUs are not compiled)",
    }
    return replace(choices, values=choices.values | values, reasons=choices.reasons | words)


def prepare(config: Any, group: Group) -> None:
    """After set_config, as upstream's own command line does it."""
    if group.size > 1:
        from lightx2v.utils.set_config import set_parallel_config

        set_parallel_config(config)


def install(runner: Any, transformers: list[Any], group: Group) -> None:
    """Put ours into a loaded runner's transformers (upstream's WanModel)."""
    if group.size == 1:
        return
    put(runner, "check_stop", lambda: None)  # asks all ranks at every step, which waits for the GPU
    for model in transformers:
        put(model, "_seq_parallel_pre_process", lambda inputs: split(inputs, group))
        put(model, "_seq_parallel_post_process", lambda x: group.whole(x, group.tokens))
        for block in model.transformer_weights.blocks:
            put(block.compute_phases[0].self_attn_1_parallel, "apply_new", exchanging(group))


def split(inputs: Any, group: Group) -> Any:
    """Upstream's inputs of the blocks, with this rank's tokens alone; with their timesteps, where each has its own."""
    count = group.begin(inputs.x.shape[0])
    own = {"x": group.share(inputs.x)}
    if inputs.embed.shape[0] == count:
        own |= {"embed": group.share(inputs.embed), "embed0": group.share(inputs.embed0)}
    return replace(inputs, **own)


def exchanging(group: Group) -> Any:
    """In place of UlyssesAttnWeight.apply_new, for blocks as upstream has them."""

    def apply_new(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        attention_module: Any = None,
        attention_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        return group.attend(lambda *parts: attend(attention_module, *parts, **(attention_kwargs or {})), q, k, v), None

    return apply_new


def attend(kernel: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **more: Any) -> torch.Tensor:
    """Of an attention class of upstream: (tokens, heads, head) each -> (tokens, heads * head)."""
    q_ends, k_ends = (torch.tensor([0, len(part)], dtype=torch.int32) for part in (q, k))
    attended: torch.Tensor = kernel.apply(
        q=q, k=k, v=v, cu_seqlens_q=q_ends, cu_seqlens_kv=k_ends, max_seqlen_q=len(q), max_seqlen_kv=len(k), **more
    )
    return attended.view(len(q), -1)
