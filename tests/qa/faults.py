"""Faults as they happen to patched pipelines, each put into a right one; the README's table of them is made here.

python -m tests.qa.faults      prints the table
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from wan_ui.engines import schedule, text, vae
from wan_ui.files.headers import read_header
from wan_ui.files.places import locate
from wan_ui.files.tensors import read_tensor
from wan_ui.files.tokenizer import clean
from wan_ui.settings import settings

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"


def prompt_padding_attended(engine, monkeypatch):
    """The prompt is padded before the text encoder, without a mask."""

    def encode(tokenizer, encoder, prompt, length):
        ids = tokenizer.encode(clean(prompt)).ids
        ids = torch.tensor([ids + [0] * (64 - len(ids))])
        hidden = encoder(ids)
        return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))

    monkeypatch.setattr(text, "encode", encode)


def vae_scale_dropped(engine, monkeypatch):
    """The VAE's latents are not normalised by their mean and deviation."""
    unit = (torch.zeros(1, 16, 1, 1, 1), torch.ones(1, 16, 1, 1, 1))
    monkeypatch.setattr(vae, "latent_statistics", lambda _vae: unit)


def vae_scale_dropped_in_decode(engine, monkeypatch):
    """The latents are not multiplied by the VAE's deviation before they are decoded."""
    decode, (_, std) = engine.decode, vae.latent_statistics(engine.vae)
    monkeypatch.setattr(engine, "decode", lambda latents: decode(latents / std[0]))


def image_channels_swapped(engine, monkeypatch):
    """The picture is read as BGR."""
    encode = engine.encode_image
    monkeypatch.setattr(engine, "encode_image", lambda pixels, frames: encode(pixels[..., ::-1].copy(), frames))


def image_in_zero_to_one(engine, monkeypatch):
    """The picture goes to the VAE as 0 to 1 instead of -1 to 1."""
    encode = vae.encode_image
    monkeypatch.setattr(vae, "encode_image", lambda model, image, *rest: encode(model, image / 2 + 0.5, *rest))


def mask_upside_down(engine, monkeypatch):
    """The mask of known frames is inverted."""
    encode = engine.encode_image

    def upside_down(pixels, frames):
        condition = encode(pixels, frames)
        condition[:4] = 1 - condition[:4]
        return condition

    monkeypatch.setattr(engine, "encode_image", upside_down)


def wrong_boundary(engine, monkeypatch):
    """The experts' boundary is 0.95 instead of 0.9."""
    engine.model = replace(engine.model, boundary=0.95)


def wrong_shift(engine, monkeypatch):
    """The schedule's shift is 3 instead of 5."""
    engine.model = replace(engine.model, shift=3.0)


def shift_applied_twice(engine, monkeypatch):
    """The shift is applied twice."""
    once = schedule.sigmas
    monkeypatch.setattr(
        schedule, "sigmas", lambda steps, shift: [shift * s / (1 + (shift - 1) * s) for s in once(steps, shift)]
    )


def experts_swapped(engine, monkeypatch):
    """High and low expert are swapped."""
    engine.experts.reverse()


def wrong_rope(engine, monkeypatch):
    """The rotary embedding runs backwards."""
    rope = engine.experts[0].rope
    for name, buffer in rope.named_buffers():
        setattr(rope, name, buffer.flip(0))


def timestep_in_zero_to_one(engine, monkeypatch):
    """The timestep goes in as 0 to 1 instead of 0 to 1000."""
    predict = engine.predict
    monkeypatch.setattr(
        engine, "predict", lambda latents, sigma, *rest, **more: predict(latents, sigma / 1000, *rest, **more)
    )


def fp8_scale_not_applied(engine, monkeypatch):
    """The scale of one fp8 weight is not applied (block 3's feed-forward)."""
    path = locate(engine.model, engine.model.scheme("fp8"), settings()).experts[0]
    scale = read_tensor(path, read_header(path).tensors["blocks.3.ffn.2.weight_scale"]).float().reshape(-1, 1)
    engine.experts[0].blocks[3].ffn.net[2].weight.data /= scale


def fp16_overflow(engine, monkeypatch):
    """Fp16 overflows in one block (5)."""
    feed_forward = engine.experts[1].blocks[5].ffn
    feed_forward.register_forward_hook(lambda _module, _args, output: (output * 1e6).half().float())


def nan_in_a_weight(engine, monkeypatch):
    """One row of one weight is NaN (block 2)."""
    engine.experts[1].blocks[2].attn1.to_q.weight.data[7, 7] = torch.nan


def one_block_skipped(engine, monkeypatch):
    """A block is left out (6)."""
    engine.experts[1].blocks[6].register_forward_hook(lambda _module, args, output: args[0])


def patch_embedding_transposed(engine, monkeypatch):
    """The patch embedding's weight has height and width exchanged."""
    weight = engine.experts[0].patch_embedding.weight
    weight.data = weight.data.transpose(-1, -2).contiguous()


def attention_raises(engine, monkeypatch):
    """An attention kernel raises (block 4)."""

    def broken(_module, _args):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    engine.experts[0].blocks[4].attn2.register_forward_pre_hook(broken)


def weight_too_large(engine, monkeypatch):
    """One weight is 15% large (block 3's feed-forward)."""
    engine.experts[0].blocks[3].ffn.net[2].weight.data *= 1.15


def timestep_late(engine, monkeypatch):
    """The timestep is late by 20."""
    predict = engine.predict
    monkeypatch.setattr(
        engine, "predict", lambda latents, sigma, *rest, **more: predict(latents, sigma - 0.02, *rest, **more)
    )


def steps_short(engine, monkeypatch):
    """The steps are 10% short."""
    whole = schedule.euler_step
    monkeypatch.setattr(
        schedule, "euler_step", lambda latents, velocity, sigma, to: whole(latents, 0.9 * velocity, sigma, to)
    )


def head_too_large(engine, monkeypatch):
    """What follows the blocks is 15% large."""
    engine.experts[1].proj_out.weight.data *= 1.15


@dataclass(frozen=True)
class Fault:
    """seed   puts the fault into an engine; its docstring says what it is
    stage  the first failing stage
    told   words of the report: of the stage, or of its block by block comparison
    also   other stages that the same fault breaks
    """

    seed: Callable
    stage: str
    told: str
    also: tuple[str, ...] = ()


FAULTS = (
    Fault(prompt_padding_attended, "text", "unlike the reference"),
    Fault(vae_scale_dropped, "image", "unlike the reference", also=("decode", "next segment")),
    Fault(image_channels_swapped, "image", "unlike the reference", also=("next segment",)),
    Fault(image_in_zero_to_one, "image", "unlike the reference", also=("next segment",)),
    Fault(mask_upside_down, "image", "unlike the reference", also=("next segment",)),
    Fault(
        wrong_boundary, "schedule", "goes to the low-noise expert, expected the high-noise expert: look at the boundary"
    ),
    Fault(wrong_shift, "schedule", "step 2 starts at sigma 0.9000, expected 0.9375: look at the shift"),
    Fault(steps_short, "schedule", "a step covers 0.9 of its way to the next sigma: look at the Euler step"),
    Fault(shift_applied_twice, "schedule", "step 2 starts at sigma 0.9868, expected 0.9375: look at the shift"),
    Fault(experts_swapped, "dit high", "all blocks are off: another expert's or model's weights?", also=("dit low",)),
    Fault(wrong_rope, "dit high", "all blocks are off: it is something they share"),
    Fault(timestep_in_zero_to_one, "dit high", "all blocks are off: it is something they share", also=("dit low",)),
    Fault(fp8_scale_not_applied, "dit high", "block 3 is the first bad one"),
    Fault(weight_too_large, "dit high", "block 3 is the first bad one"),
    Fault(timestep_late, "dit high", "all blocks are off: it is something they share", also=("dit low",)),
    Fault(head_too_large, "dit low", "every block is right, what follows them (the head) is off by"),
    Fault(patch_embedding_transposed, "dit high", "what enters block 0 (the patch embedding) is off"),
    Fault(attention_raises, "dit high", "RuntimeError in block 4: CUDA error: no kernel image is available"),
    Fault(nan_in_a_weight, "dit low", "block 2 is the first with NaN or Inf"),
    Fault(fp16_overflow, "dit low", "block 5 is the first with NaN or Inf"),
    Fault(one_block_skipped, "dit low", "block 6 is the first bad one"),
    Fault(vae_scale_dropped_in_decode, "decode", "close, but more than rounding"),
)


def table() -> str:
    """Markdown, between the marks that it has in a document."""
    rows = [f"| {fault.seed.__doc__.rstrip('.')} | {fault.stage} | {fault.told} |" for fault in FAULTS]
    return "\n".join([BEGIN, "| fault | first failing stage | what the report says |", "|---|---|---|", *rows, END])


if __name__ == "__main__":
    print(table())
