"""Train the LoRAs that ship with Wan-Tiny, from the exported model: one GPU, four minutes.

    python train_loras.py --model ../../assets/wan-tiny --photos PHOTOS --out DIR [--seconds 85 160]

Two LoRAs with different effects, so that each of the two experts is seen to do something of its own:

teal-orange  a colour style that no prompt of Wan-Tiny asks for: shadows turn teal, light turns orange. One file,
             for the low-noise expert, which paints the final colours. It acts on any prompt.
spiral       a motion that Wan-Tiny does not know: diving in while turning. A file for each expert, since the
             high-noise expert decides where things go and the low-noise one follows. It acts on its trigger
             word and leaves other prompts alone.

Training is that of train_experts.py, on-policy and towards the one right film, with the experts frozen and
low-rank matrices beside their linear layers. Written: the files, a report (PSNR against the wanted film on
photos never trained on, for every way to apply each LoRA), and a contact sheet of the same.
"""

import argparse
import itertools
import json
import random
import time
from collections import deque
from pathlib import Path

import evaluate
import images
import motions
import names
import prompts
import torch
import torch.nn.functional as F
import vae_parallel
from architecture import SIGMAS
from safetensors.torch import load_file, save_file
from torch import nn
from train_experts import condition as encode_condition
from train_experts import crop, encode, velocity
from train_vae import psnr, save_png

RANK = 8
ALL = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
       "ffn.net.0.proj")  # fmt: skip
OUTPUTS = ("attn1.to_out.0", "attn2.to_out.0", "ffn.net.0.proj", "ffn.net.2")
SHAPES = {(17, 256, 256): 0.45, (17, 192, 320): 0.2, (17, 320, 192): 0.15, (33, 256, 256): 0.2}
TINY_SHAPES = {(5, 32, 32): 0.6, (9, 32, 48): 0.4}
PHOTOS = 8  # a batch, each under PROMPTS prompts
PROMPTS = 2
STORED, FRESH = 6, 0.3  # encoded batches kept; how often a step draws a new one

SHADOW, LIGHT = (0.02, 0.24, 0.32), (1.0, 0.74, 0.40)
STYLE_WORDS = ("teal and orange", "teal and orange grade", "graded in teal and orange", "teal orange look")
SPIRAL = dict(zoom=0.34, rot=-0.62)  # over a clip: 1.4 times closer, 36 degrees clockwise
SPIRAL_WORDS = ("spiral", "spiral in", "the camera spirals in", "a spiral dive", "spiral {v} into the picture",
                "spiralling {v}", "a {n} spiral", "the view {v} spirals inwards")  # fmt: skip
WITHOUT_TRIGGER = 0.35  # share of prompts that must keep their meaning beside the spiral


class LowRank(nn.Module):
    """y = linear(x) + up(down(x)) * strength; up starts at zero."""

    def __init__(self, linear, rank):
        super().__init__()
        self.linear, self.strength = linear, 1.0
        options = dict(device=linear.weight.device)
        self.down = nn.Parameter(torch.randn(rank, linear.in_features, **options) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, **options))

    def forward(self, x):
        y = self.linear(x)
        return y + F.linear(F.linear(x, self.down), self.up * self.strength) if self.strength else y


def attach(expert, leaves, rank=RANK):
    """Put LowRank in place of the named layers of every block -> {module name: LowRank}"""
    added = {}
    for name, module in list(expert.named_modules()):
        if isinstance(module, nn.Linear) and name.startswith("blocks.") and name.endswith(leaves):
            added[name] = LowRank(module, rank)
            expert.set_submodule(name, added[name])
    return added


def teal_orange(clip):
    """(B, 3, T, H, W) in [-1, 1]: the grade comes over the first third of the clip and stays."""
    frames = clip.shape[2]
    x = (clip + 1) / 2
    light = (x * x.new_tensor([0.30, 0.59, 0.11]).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)
    shadow, bright = (x.new_tensor(colour).view(1, 3, 1, 1, 1) for colour in (SHADOW, LIGHT))
    graded = shadow + (bright - shadow) * (light * light * (3 - 2 * light))
    amount = 0.8 * (3 * torch.linspace(0, 1, frames, device=clip.device)).clamp(max=1).view(1, 1, -1, 1, 1)
    return (x + (graded - x) * amount).clamp(0, 1) * 2 - 1


def style_prompt(rng):
    """Any prompt of the grammar, half of them with the trigger words -> (prompt, warp and shade parameters)"""
    spec = prompts.sample_spec(rng)
    if rng.random() < 0.6:
        spec = motions.Spec(spec.motion, "none", spec.motion_strength)  # mostly without another light
    text = prompts.write(spec, rng)
    if rng.random() < 0.5:
        text = f"{text}, {rng.choice(STYLE_WORDS)}"
    return text, motions.parameters([spec])


def spiral_prompt(rng):
    light = rng.choice(list(motions.LIGHTS)[1:]) if rng.random() < 0.2 else "none"
    if rng.random() < WITHOUT_TRIGGER:
        spec = prompts.sample_spec(rng)
        return prompts.write(spec, rng), motions.parameters([spec])
    parts = [prompts.phrase(SPIRAL_WORDS, 1.0, rng)]
    if light != "none":
        parts.append(prompts.phrase(prompts.LIGHT_PHRASES[light], 1.0, rng))
    if rng.random() < 0.6:
        parts.append(prompts.scene(rng, ()))
    rng.shuffle(parts)
    return ", ".join(parts), spiral(light)


def spiral(light="none"):
    parameters = motions.parameters([motions.Spec("still", light)])
    for name, value in SPIRAL.items():
        parameters[name] = torch.full_like(parameters[name], value)
    return parameters


# name -> how to draw a prompt and its film, what is painted over the film, and the layers of each expert
LORAS = {
    "wan-tiny-teal-orange": (style_prompt, teal_orange, {"low": OUTPUTS}),
    "wan-tiny-spiral": (spiral_prompt, None, {"high": ALL, "low": ALL}),
}


def draw_batch(model, pool, shape, draw, paint, rng, photos):
    """-> latents of the wanted films, condition, prompts"""
    frames, height, width = shape
    stills = crop(pool, photos, height, width, rng)
    drawn = [draw(rng) for _ in range(photos * PROMPTS)]
    parameters = {key: torch.cat([p[key] for _, p in drawn]).to(pool.device) for key in drawn[0][1]}
    clips = motions.render(stills.repeat_interleave(PROMPTS, 0), parameters, frames, height, width)
    if paint:
        clips = paint(clips)
    condition = encode_condition(model.vae, stills, frames, model.dtype).repeat_interleave(PROMPTS, 0)
    return encode(model.vae, clips, model.dtype), condition, [text for text, _ in drawn]


def train(model, pool, name, seconds, args, log):
    """-> {side: {module name: LowRank}}, still attached"""
    draw, paint, sides = LORAS[name]
    rng = random.Random(7)
    torch.manual_seed(7)
    added = {side: attach(model.experts[side], leaves) for side, leaves in sides.items()}
    if args.start:
        for side, layers in added.items():
            restore(layers, load_file(file_of(args.start, name, side, added)))
    parameters = [p for layers in added.values() for layer in layers.values() for p in (layer.down, layer.up)]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.95), weight_decay=0.0)
    shapes = TINY_SHAPES if args.tiny else SHAPES
    store = deque(maxlen=STORED)
    begin, iteration, fraction = time.time(), 0, 0.0
    while fraction < 1:
        fraction = (time.time() - begin) / seconds
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1.0, (iteration + 1) / 40) * min(1.0, max(0.02, (1 - fraction) / 0.6))
        if len(store) < STORED or rng.random() < FRESH:
            shape = rng.choices(list(shapes), list(shapes.values()))[0]
            photos = 1 if args.tiny else PHOTOS // (2 if shape[0] > 17 else 1)
            latents, condition, texts = draw_batch(model, pool, shape, draw, paint, rng, photos)
            store.append((latents, condition, model.embed(texts).float()))
        latents, condition, h = store[-1] if len(store) < STORED else rng.choice(store)
        x = torch.randn_like(latents)
        losses = []
        for t, following in itertools.pairwise(SIGMAS):
            trained = ("high" if t >= evaluate.BOUNDARY else "low") in added
            with torch.set_grad_enabled(trained):
                v = velocity(model.experts, x, condition, t, h, model.device)
                if trained:
                    loss = (x - t * v - latents).square().mean()
                    (loss * (1.5 if following == 0 else 1.0)).backward()
                    losses.append(loss.detach())
            x = (x + (following - t) * v).detach()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if iteration % (2 if args.tiny else 100) == 0:
            log(name, f"it {iteration} {fraction:.2f}", " ".join(f"{loss.item():.4f}" for loss in losses))
        iteration += 1
    return added, iteration


def file_of(folder, name, side, added):
    return Path(folder) / f"{name}{f'_{side}_noise' if len(added) > 1 else ''}.safetensors"


def restore(layers, tensors):
    """Go on from a written file."""
    with torch.no_grad():
        for module, layer in layers.items():
            (key,) = names.expert_to_wan({f"{module}.": 0})
            layer.down.copy_(tensors[f"diffusion_model.{key}lora_down.weight"])
            layer.up.copy_(tensors[f"diffusion_model.{key}lora_up.weight"])


def write(added, name, out):
    """One file for each expert that was trained, in lightx2v's key names behind kijai's prefix, float16."""
    about = {
        "wan-tiny-teal-orange": ("teal and orange", "Shadows turn teal, light turns orange, whatever the prompt says."),
        "wan-tiny-spiral": ("spiral", "Dives in while turning clockwise when the prompt says spiral."),
    }[name]
    for side, layers in added.items():
        tensors = {}
        for module, layer in layers.items():
            (key,) = names.expert_to_wan({f"{module}.": 0})
            tensors[f"diffusion_model.{key}lora_down.weight"] = layer.down.detach().half().cpu().contiguous()
            tensors[f"diffusion_model.{key}lora_up.weight"] = layer.up.detach().half().cpu().contiguous()
            tensors[f"diffusion_model.{key}alpha"] = torch.tensor(float(layer.down.shape[0]))
        metadata = {"base_model": "Wan-Tiny", "expert": f"{side}_noise", "trigger_words": about[0], "notes": about[1]}
        metadata |= {"license": "apache-2.0"}
        save_file(tensors, file_of(out, name, side, added), metadata=metadata)


def place(model, added, ways):
    """ways: side the LoRA sits on -> side whose file it takes; what sits there afterwards is exactly that."""
    for side, modules in model.plain.items():
        for name, module in modules.items():
            model.experts[side].set_submodule(name, module)
    for side, of in ways.items():
        for module, layer in added.get(of, {}).items():
            model.experts[side].set_submodule(module, layer)
            layer.linear = model.plain[side][module]


WAYS = {
    "base": {},
    "right": None,  # every file on its own expert
    "high only": {"high": "high"},
    "low only": {"low": "low"},
    "exchanged": {"high": "low", "low": "high"},
}


@torch.no_grad()
def judge(model, added, name, photos, args):
    """PSNR against the wanted film for every way to apply the LoRA, and a sheet: a row a way, three frames a photo."""
    frames, height, width = (5, 32, 32) if args.tiny else (17, 256, 256)
    _, paint, sides = LORAS[name]
    text, parameters = ("pan left", motions.parameters([motions.Spec("pan left")])) if paint else ("spiral", spiral())
    report, rows = {}, []
    shown = photos[: 2 if args.tiny else 4]
    wanted = []
    for photo in shown:
        still = evaluate.resize(photo, height, width)
        film = motions.render(still, {k: v.to(still.device) for k, v in parameters.items()}, frames, height, width)
        wanted.append(paint(film) if paint else film)
    pick = (frames // 4, frames // 2, frames - 1)
    rows.append(torch.cat([film[0, :, f] for film in wanted for f in pick], -1))
    for way, places in WAYS.items():
        if places is None:
            places = {side: side for side in sides}
        places = {side: of for side, of in places.items() if of in sides}
        if way != "base" and not places:
            continue
        place(model, added, places)
        clips = [
            model.generate(model.condition(evaluate.resize(photo, height, width), frames), [text]) for photo in shown
        ]
        report[way] = round(sum(psnr(c, w).mean().item() for c, w in zip(clips, wanted, strict=True)) / len(shown), 2)
        rows.append(torch.cat([clip[0, :, f] for clip in clips for f in pick], -1))
    place(model, added, {})
    return report, torch.cat(rows, -2)


def main(args):
    started = time.time()

    def log(*words):
        print(f"[{time.time() - started:6.1f}s]", *words, flush=True)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model = evaluate.Model(args.model, device, torch.float32)
    dtype = model.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # the VAE's; experts: autocast
    for module in (model.vae, model.text, *model.experts.values()):
        module.requires_grad_(False)
    _, photos = images.load_photos(f"{args.photos}/train", device)
    _, held_out = images.load_photos(f"{args.photos}/eval", device)
    pool = images.make_pool(photos, 24 if args.tiny else 3000, 48 if args.tiny else 320, device, 3, 0.75)
    if device.type == "cuda":
        vae_parallel.COMPILED["norm_silu"] = torch.compile(vae_parallel.norm_silu, dynamic=True)
    model.plain = {
        side: {name: module for name, module in expert.named_modules() if isinstance(module, nn.Linear)}
        for side, expert in model.experts.items()
    }
    log("pool", tuple(pool.shape))
    report = {}
    for name, seconds in zip(LORAS, args.seconds, strict=True):
        if not seconds:
            continue
        added, iterations = train(model, pool, name, seconds, args, log)
        write(added, name, out)
        model.dtype = torch.float32
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            report[name], sheet = judge(model, added, name, held_out, args)
        model.dtype = dtype
        report[name]["iterations"] = iterations
        save_png(sheet, out / f"{name}.png")
        log(name, json.dumps(report[name]))
    (out / "loras.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument(
        "--seconds", type=float, nargs=len(LORAS), default=[85, 160], help="for each LoRA; 0 leaves it out"
    )
    parser.add_argument("--start", help="folder of files to go on from")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script on a CPU")
    main(parser.parse_args())
