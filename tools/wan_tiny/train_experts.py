"""Train Wan-Tiny's two experts and its text encoder, jointly and from scratch.

    torchrun --nproc_per_node 4 train_experts.py --photos PHOTOS --tokenizer DIR \
        --vae vae.pt --out DIR --seconds 840

Most batches are on-policy: the real sampler runs from noise to clip, each of its steps is
trained to predict the true latents from the latents it will really be handed, and the next
step starts from the model's own result. So the low-noise expert learns to refine what the
high-noise expert really makes, which few-step sampling needs and plain flow matching does
not give. The rest is plain flow matching at random times, so that other step counts work.
In the last third some final latents are decoded through the frozen VAE and also judged in
pixels.

The product is a deterministic film of photo and prompt (motions.py), so there is one right
answer and mean squared error is the right loss.
"""

import argparse
import itertools
import json
import random
import time
from collections import deque
from pathlib import Path

import images
import motions
import prompts
import torch
import torch.nn.functional as F
import vae_parallel
from architecture import BOUNDARY, EXPERT, SIGMAS, build_expert, build_text_encoder, build_vae, shifted
from optimizer import Optimizer
from parallel import FlatGradient, World
from train_vae import psnr, save_png

# (frames, height, width): photos per batch, how often. Each photo appears under VARIANTS prompts.
SHAPES = {
    (17, 256, 256): (6, 0.26),
    (17, 192, 320): (6, 0.16),
    (17, 320, 192): (6, 0.13),
    (25, 256, 256): (4, 0.09),
    (25, 192, 320): (4, 0.07),
    (25, 320, 192): (4, 0.05),
    (33, 256, 256): (3, 0.10),
    (33, 192, 320): (3, 0.08),
    (33, 320, 192): (3, 0.06),
}
TINY_SHAPES = {(5, 32, 32): (2, 0.6), (9, 32, 48): (1, 0.4)}
VARIANTS = 4
STORED = 5  # encoded batches kept per shape; each is used about REUSE times
REUSE = 3
TEXT_TOKENS, TEXT_LEN = 64, 512
ON_POLICY, OTHER_STEPS = 0.78, 0.15
PIXEL_SHARE, PIXEL_WEIGHT = 0.35, 3.0
SIMPLE_SHARE = 0.15


class Text:
    """Prompts -> (B, 512, 128): tokens, encoder, zeros beyond the real length, as Wan's pipelines do it."""

    def __init__(self, tokenizer_file, device):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.model = build_text_encoder().to(device)
        self.device = device

    def __call__(self, texts):
        ids = [e.ids for e in self.tokenizer.encode_batch(texts)]
        ids = [i if len(i) <= TEXT_TOKENS else [*i[: TEXT_TOKENS - 1], 1] for i in ids]
        tokens = torch.tensor([i + [0] * (TEXT_TOKENS - len(i)) for i in ids]).to(self.device, non_blocking=True)
        mask = (tokens != 0).long()
        h = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state * mask[..., None]
        return F.pad(h, (0, 0, 0, TEXT_LEN - TEXT_TOKENS))


class Batch:
    """Encoded clips: latents and condition in the experts' space, the clips, what each shows."""

    def __init__(self, latents, condition, clips, specs):
        self.latents, self.condition, self.clips, self.specs = latents, condition, clips, specs


def crop(pool, n, height, width, rng):
    """Random pool images as photos of exactly (height, width): what a user's upload becomes."""
    size = pool.shape[-1]
    fit = min(size / height, size / width)
    s = fit * rng.uniform(0.75, 1.0)
    ch, cw = int(height * s), int(width * s)
    y, x = rng.randint(0, size - ch), rng.randint(0, size - cw)
    pick = pool[torch.randint(len(pool), (n,), device=pool.device), :, y : y + ch, x : x + cw].float()
    pick = F.interpolate(pick, size=(height, width), mode="bilinear", antialias=True)
    return pick.flip(-1) if rng.random() < 0.5 else pick


@torch.no_grad()
def encode(vae, clips, dtype, chunk=8):
    return torch.cat([vae_parallel.normalise(vae_parallel.encode(vae, c, dtype), vae) for c in clips.split(chunk)])


@torch.no_grad()
def condition(vae, photos, frames, dtype):
    """(n, 3, H, W) -> (n, 20, t, h, w): the first-frame mask and the latents of the photo followed by grey."""
    clip = photos.new_zeros(len(photos), 3, frames, *photos.shape[-2:])
    clip[:, :, 0] = photos
    z = encode(vae, clip, dtype)
    mask = z.new_zeros(len(z), 4, *z.shape[2:])
    mask[:, :, 0] = 1
    return torch.cat([mask, z], 1)


def make_batch(vae, pool, shape, count, rng, dtype, simple):
    frames, h, w = shape
    photos = crop(pool, count, h, w, rng)
    specs = [prompts.sample_spec(rng, simple) for _ in range(count * VARIANTS)]
    clips = motions.render(photos.repeat_interleave(VARIANTS, 0), motions.parameters(specs, pool.device), frames, h, w)
    c = condition(vae, photos, frames, dtype).repeat_interleave(VARIANTS, 0)
    return Batch(encode(vae, clips, dtype), c, clips.to(torch.bfloat16), specs)


def velocity(experts, x, c, t, h, device):
    """One expert's prediction; t is a float, the expert follows from it."""
    expert = experts["high" if t >= BOUNDARY else "low"]
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        time_ = torch.full((len(x),), t * 1000, device=device)
        return expert(torch.cat([x, c], 1), timestep=time_, encoder_hidden_states=h, return_dict=False)[0].float()


@torch.no_grad()
def sample(experts, text, c, texts, device, sigmas=SIGMAS, seed=0):
    """The product's sampler: deterministic Euler steps from noise -> latents."""
    g = torch.Generator(device=device).manual_seed(seed)
    x = torch.randn(len(c), 16, *c.shape[2:], device=device, generator=g)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        h = text(texts)
    for t, following in itertools.pairwise(sigmas):
        x = x + (following - t) * velocity(experts, x, c, t, h, device)
    return x


@torch.no_grad()
def evaluate(world, vae, experts, text, photos, frames, height, width):
    """Every motion at default strength on held-out photos, shared out over the ranks -> dict of PSNR."""
    names = list(motions.MOTIONS)
    specs = [motions.Spec(m) for m in names]
    rng = random.Random(5)
    score = torch.zeros(3, len(names), device=world.device)  # clip against target, VAE against target, first frame
    sheet = []
    for i, photo in enumerate(photos):
        texts = [prompts.write(s, rng) for s in specs]
        if i % world.size != world.rank:
            continue
        photo = F.interpolate(photo[None], size=(height, width), mode="bilinear", antialias=True)
        target = motions.render_specs(photo.expand(len(specs), -1, -1, -1), specs, frames)
        c = condition(vae, photo, frames, world.dtype).expand(len(specs), -1, -1, -1, -1)
        z = sample(experts, text, c, texts, world.device)

        def decode(z):
            return torch.cat(
                [vae_parallel.decode(vae, vae_parallel.denormalise(p, vae), world.dtype) for p in z.split(2)]
            )

        out, ideal = decode(z), decode(encode(vae, target, world.dtype, 2))
        first = psnr(out[:, :, :1], target[:, :, :1])
        score += torch.stack([psnr(out, target), psnr(ideal, target), first]) / len(photos)
        if i == 0:
            at = (0, frames // 2, frames - 1)
            sheet = [
                torch.cat([x[k][:, f].clamp(-1, 1) for f in at for x in (target, out)], -1) for k in range(len(names))
            ]
    if world.size > 1:
        torch.distributed.all_reduce(score)
    clip, ideal, first = score.tolist()
    moving = [x for n, x in zip(names, clip, strict=True) if n != "still"]
    report = {
        "mean": round(sum(clip) / len(clip), 2),
        "worst": round(min(moving), 2),
        "vae": round(sum(ideal) / len(ideal), 2),
        "first_frame": round(sum(first) / len(first), 2),
        "motions": {n: round(x, 1) for n, x in zip(names, clip, strict=True)},
    }
    return report, (torch.cat(sheet, -2) if sheet else None)


def save(out, experts, text, name):
    """float16 shards of at most 15 MB, keys high.*, low.*, text.*"""
    state = {
        f"{n}.{k.replace('_orig_mod.', '')}": v.detach().half().cpu().contiguous()
        for n, m in (*experts.items(), ("text", text.model))
        for k, v in m.state_dict().items()
    }
    shards, room = [{}], 15e6
    for k, v in state.items():
        if room < v.numel() * 2:
            shards.append({})
            room = 15e6
        shards[-1][k] = v
        room -= v.numel() * 2
    for i, shard in enumerate(shards):
        torch.save(shard, out / f"{name}_{i}.pt.tmp")
        (out / f"{name}_{i}.pt.tmp").rename(out / f"{name}_{i}.pt")


def main(args):
    world = World()
    device, dtype = world.device, world.dtype
    rng, shared = random.Random(2000 + world.rank), random.Random(11)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.tiny:
        EXPERT["num_layers"] = 2
    words = Path(args.photos, "words.txt").read_text(encoding="utf-8").split()
    _, photos = images.load_photos(f"{args.photos}/train", device)
    _, held_out = images.load_photos(f"{args.photos}/eval", device)
    pool = images.make_pool(photos, 40 if args.tiny else 9000, 48 if args.tiny else 320, device, 50 + world.rank, 0.65)

    vae = build_vae().to(device).requires_grad_(False)
    vae.load_state_dict({k: v.float() for k, v in torch.load(args.vae, weights_only=True)["vae"].items()})
    torch.manual_seed(3)
    experts = {"high": build_expert().to(device), "low": build_expert().to(device)}
    text = Text(Path(args.tokenizer) / "tokenizer.json", device)
    with torch.no_grad():
        for e in experts.values():
            e.proj_out.weight.mul_(0.1)
    if args.start:
        state = {
            k: v
            for f in sorted(Path(args.start).parent.glob(Path(args.start).name + "_*.pt"))
            for k, v in torch.load(f, weights_only=True, map_location="cpu").items()
        }
        for n, m in (*experts.items(), ("text", text.model)):
            m.load_state_dict({k[len(n) + 1 :]: v.float() for k, v in state.items() if k.startswith(n + ".")})
    models = [*experts.values(), text.model]
    parameters = [p for m in models for p in m.parameters()]
    world.same_weights(parameters)
    gradient = FlatGradient(parameters, world)
    optimizer = Optimizer(models, args.optimizer, device.type == "cuda")
    torch.manual_seed(4000 + world.rank)
    if device.type == "cuda":
        vae_parallel.COMPILED["norm_silu"] = torch.compile(vae_parallel.norm_silu, dynamic=True)
        for e in experts.values():
            e.compile_repeated_blocks(dynamic=True)
    world.log("pool", tuple(pool.shape), f"{sum(p.numel() for p in parameters) / 1e6:.1f}M parameters")

    shapes = TINY_SHAPES if args.tiny else SHAPES
    store = {s: deque(maxlen=STORED) for s in shapes}
    age = dict.fromkeys(shapes, 0)
    pixel_weight = 0.0
    losses = {}

    def backward(x0, b, weight):
        loss = (x0 - b.latents).square().mean()
        (weight * loss).backward()
        return loss.detach()

    def on_policy(b, h, sigmas):
        x = torch.randn_like(b.latents)
        for t, following in itertools.pairwise(sigmas):
            v = velocity(experts, x, b.condition, t, h, device)
            x0 = x - t * v
            loss = (x0 - b.latents).square().mean()
            losses[f"{'high' if t >= BOUNDARY else 'low'} {t:.2f}"] = loss.detach()
            if following == 0 and pixel_weight:
                k = min(len(x), max(1, 51 // b.clips.shape[2]))
                pick = slice(o := shared.randrange(len(x) - k + 1), o + k)
                d = vae_parallel.decode(vae, vae_parallel.denormalise(x0[pick], vae), dtype) - b.clips[pick].float()
                edges = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
                losses["pixel mse"] = d.detach().square().mean()
                loss = loss + pixel_weight * (d.square().mean() + 0.05 * edges)
            (loss * (1.5 if following == 0 else 1.0)).backward()
            x = (x + (following - t) * v).detach()

    def off_policy(b, h):
        noise = torch.randn_like(b.latents)
        for name, (low, high) in (("high", (0.875, 1.0)), ("low", (0.02, 0.9))):
            t = (low + (high - low) * torch.rand(len(noise), device=device)).view(-1, 1, 1, 1, 1)
            x = (1 - t) * b.latents + t * noise
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                v = experts[name](
                    torch.cat([x, b.condition], 1),
                    timestep=t.flatten() * 1000,
                    encoder_hidden_states=h,
                    return_dict=False,
                )[0].float()
            (t * (v - (noise - b.latents)).square()).mean().backward()

    begin, iteration, saved, fraction, last = world.elapsed(), 0, 0.0, 0.0, time.time()
    while fraction < 1:
        if iteration % 10 == 0:
            now = world.elapsed() - begin
            fraction = now / args.seconds
            pixel_weight = PIXEL_WEIGHT if fraction > 1 - PIXEL_SHARE else 0.0
            if iteration % (5 if args.tiny else 100) == 0:
                pace = (time.time() - last) / (5 if args.tiny else 100) * 1e3
                last = time.time()
                world.log(
                    f"it {iteration} {fraction:.2f} {pace:.0f} ms/it",
                    " ".join(f"{k}: {v.item():.4f}" for k, v in losses.items()),
                )
            if now - saved > 60 and world.rank == 0:
                saved = now
                save(out, experts, text, "running")
        shape = shared.choices(list(shapes), [w for _, w in shapes.values()])[0]
        if age[shape] % REUSE == 0 or not store[shape]:
            store[shape].append(make_batch(vae, pool, shape, shapes[shape][0], rng, dtype, fraction < SIMPLE_SHARE))
        age[shape] += 1
        b = store[shape][-1] if len(store[shape]) < STORED else rng.choice(store[shape])
        texts = [prompts.write(s, rng, words) for s in b.specs]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            encoded = text(texts)
        h = encoded.detach().float().requires_grad_()
        r = shared.random()
        if r < ON_POLICY:
            sigmas = SIGMAS
            if shared.random() < OTHER_STEPS:
                n = shared.choice([1, 2, 3, 5, 6, 8])
                sigmas = [shifted(1 - k / n) for k in range(n)] + [0.0]
            on_policy(b, h, sigmas)
        else:
            off_policy(b, h)
        encoded.backward(h.grad.to(encoded.dtype))
        gradient.finish()
        rate = args.rate * min(1.0, (iteration + 1) / 200) * min(1.0, max(0.01, (1 - fraction) / 0.55))
        optimizer.step(rate)
        gradient.zero()
        iteration += 1

    for e in experts.values():
        e.eval()
    if world.rank == 0:
        save(out, experts, text, "experts")
    if device.type == "cuda":  # a handful of evaluation shapes are not worth compiling
        torch.compiler.set_stance("force_eager")
    report = {"iterations": iteration, "seconds": args.seconds, "gpus": world.size}
    for frames, h, w in ((5, 32, 32),) if args.tiny else ((17, 256, 256), (33, 192, 320)):
        r, sheet = evaluate(world, vae, experts, text, held_out, frames, h, w)
        report[f"{frames}x{h}x{w}"] = r
        world.log(frames, h, w, json.dumps(r))
        if world.rank == 0:
            save_png(sheet, out / f"experts_{frames}.png")
            (out / "experts.json").write_text(json.dumps(report, indent=1) + "\n")
    world.log("done", iteration, "iterations")
    world.barrier()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--vae", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=840)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--start", help="continue from these shards, e.g. out/experts")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script on a CPU")
    main(parser.parse_args())
