"""Train Wan-Tiny's VAE from scratch on rendered clips.

    torchrun --nproc_per_node 4 train_vae.py --photos PHOTOS --out DIR --seconds 420

It begins as a per-frame autoencoder (the earlier temporal taps are zero), learns images
for a few seconds, then clips of 17 and 33 frames: clips of 9 frames alone drift in colour
later on. At the end an affine map is folded into the last encoder and the first decoder
convolution, so that raw latents have exactly the mean and deviation of Wan2.1's, which
the engines hard-code.

One loss is unusual. The image-to-video condition is the photo followed by mid-grey frames;
the latents of those grey frames carry no content. They are trained to tell how far each
border is (`border_loss`): an image costs nothing by it, and the experts, whose attention
knows only relative positions, get the absolute ones that zooming and turning need.
"""

import argparse
import json
import math
import random
from pathlib import Path

import images
import motions
import prompts
import torch
import torch.nn.functional as F
import vae_parallel
from architecture import LATENTS_MEAN, LATENTS_STD, build_vae
from parallel import FlatGradient, World

# (batch per process, frames, height, width) and how often
SHAPES = [((6, 17, 128, 128), 0.44), ((5, 33, 96, 96), 0.20), ((2, 17, 256, 256), 0.36)]
TINY_SHAPES = [((2, 5, 32, 32), 0.7), ((1, 9, 32, 32), 0.3)]
BORDER_CHANNELS = 4  # latent channels that tell the distance to the left, right, top, bottom
LATENT_NOISE = 0.03


def initial_vae():
    """Random weights that act frame by frame: earlier temporal taps zero, time (up|down)sampling copies."""
    vae = build_vae()
    with torch.no_grad():
        for name, m in vae.named_modules():
            if name.endswith("attentions.0"):
                m.proj.weight.zero_()
                m.proj.bias.zero_()
            if hasattr(m, "conv2") and hasattr(m, "norm2"):
                m.conv2.weight.mul_(0.5)
            if type(m).__name__ == "WanCausalConv3d" and m.weight.shape[2:] == (3, 3, 3):
                m.weight[:, :, :2].zero_()
            if name.endswith("time_conv"):
                channels = m.weight.shape[1]
                eye = torch.eye(channels)
                m.weight.zero_()
                m.bias.zero_()
                if m.weight.shape[0] == channels:  # downsampling: the mean of two frames
                    m.weight[:, :, 1, 0, 0] = m.weight[:, :, 2, 0, 0] = 0.5 * eye
                else:  # upsampling: the frame twice
                    m.weight[:channels, :, 2, 0, 0] = m.weight[channels:, :, 2, 0, 0] = eye
        vae.quant_conv.weight[16:].zero_()
        vae.quant_conv.bias[16:].fill_(-12.0)  # the log-variance half: the encoder is deterministic
    return vae


def random_parameters(n, device):
    """Continuous random motions and lights, wider than the named ones; parameters as in motions.py."""

    def u(lo, hi, share):
        return (lo + (hi - lo) * torch.rand(n, device=device)) * (torch.rand(n, device=device) < share)

    p = dict(
        zoom=u(-0.45, 0.45, 0.4),
        rot=u(-0.5, 0.5, 0.3),
        tx=u(-0.6, 0.6, 0.45),
        ty=u(-0.6, 0.6, 0.4),
        wave=u(0.01, 0.05, 0.2),
        sway=u(-0.14, 0.14, 0.12),
        shake=u(0.01, 0.05, 0.1),
        pulse=u(0.03, 0.15, 0.07),
        gray=u(0, 1, 0.08),
        sepia=u(0, 1, 0.05),
        fog=u(0, 0.8, 0.08),
    )
    p["gain"] = (torch.rand(n, 3, device=device) * 1.9 - 1.5) * (torch.rand(n, 1, device=device) < 0.25)
    return p


def place_window(p, n, height, width, pool_size, device):
    """Put the clip's window on a random part of the pool image, near its own resolution."""
    zoom = 0.75 + 0.6 * torch.rand(n, device=device)
    p["scale_x"], p["scale_y"] = (zoom * width / pool_size).clamp(max=1), (zoom * height / pool_size).clamp(max=1)
    p["cx"] = (torch.rand(n, device=device) * 2 - 1) * (1 - p["scale_x"])
    p["cy"] = (torch.rand(n, device=device) * 2 - 1) * (1 - p["scale_y"])
    return p


def training_clip(pool, shape, rng):
    """-> (N, 3, T, H, W) in [-1, 1]: a named or a random motion, at times with a second moving layer."""
    n, frames, h, w = shape
    device, size = pool.device, pool.shape[-1]

    def take():
        return pool[torch.randint(len(pool), (n,), device=device)]

    if rng.random() < 0.5:
        p = motions.parameters([prompts.sample_spec(rng) for _ in range(n)], device)
        return motions.render(take(), place_window(p, n, h, w, size, device), frames, h, w)
    clip = motions.render(take(), place_window(random_parameters(n, device), n, h, w, size, device), frames, h, w)
    if frames > 1 and rng.random() < 0.5:  # an ellipse through which another photo moves
        q = place_window(random_parameters(n, device), n, h, w, size, device)
        other = motions.render(take(), q, frames, h, w)
        grid = motions.warp(q, frames, h, w, device)
        x = (grid[..., 0] - q["cx"].view(n, 1, 1, 1)) / q["scale_x"].view(n, 1, 1, 1)
        y = (grid[..., 1] - q["cy"].view(n, 1, 1, 1)) / q["scale_y"].view(n, 1, 1, 1)

        def r(lo, hi):
            return lo + (hi - lo) * torch.rand(n, 1, 1, 1, device=device)

        mask = torch.sigmoid(
            8 - 8 * (((x - r(-0.6, 0.6)) / r(0.15, 0.6)) ** 2 + ((y - r(-0.6, 0.6)) / r(0.15, 0.6)) ** 2)
        )
        mask = (mask * (r(0, 1) < 0.6))[:, None]
        clip = clip * (1 - mask) + other * mask
    return clip


def reconstruction_loss(output, clip):
    d = output - clip
    mse = d.square().mean()
    edges = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    coarse = F.avg_pool3d(d, (1, 4, 4)).abs().mean()
    return torch.sqrt(d.square() + 1e-4).mean() + 4 * mse + 0.3 * edges + 0.4 * coarse, mse


def border_loss(vae, pool, shape, dtype):
    """How badly the grey frames' latents tell the distance to each border (exp(-distance / 8 latents))."""
    n, frames, h, w = shape
    clip = torch.zeros(n, 3, frames, h, w, device=pool.device)
    pick = pool[torch.randint(len(pool), (n,), device=pool.device)].float()
    clip[:, :, 0] = F.interpolate(pick, size=(h, w), mode="bilinear", antialias=True)
    z = vae_parallel.encode(vae, clip, dtype)[:, :BORDER_CHANNELS, 2:]
    x = torch.arange(w // 8, device=z.device).view(1, -1).expand(h // 8, -1)
    y = torch.arange(h // 8, device=z.device).view(-1, 1).expand(-1, w // 8)
    distance = torch.stack([x, w // 8 - 1 - x, y, h // 8 - 1 - y]).float()
    return (z - 2 * torch.exp(-distance / 8)[None, :, None]).square().mean()


@torch.no_grad()
def fold_statistics(vae, mean, std):
    """Rewrite the two outermost latent convolutions so that raw latents get Wan2.1's statistics."""
    device = mean.device
    target_mean, target_std = torch.tensor(LATENTS_MEAN, device=device), torch.tensor(LATENTS_STD, device=device)
    gain = target_std / std
    w, b = vae.quant_conv.weight, vae.quant_conv.bias
    w[:16] *= gain.view(-1, 1, 1, 1, 1)
    b[:16] = (b[:16] - mean) * gain + target_mean
    w, b = vae.post_quant_conv.weight, vae.post_quant_conv.bias
    b += w[:, :, 0, 0, 0] @ (mean - target_mean / gain)
    w /= gain.view(1, -1, 1, 1, 1)


def psnr(a, b, dims=(1, 2, 3, 4)):
    """Decibels of clips in [-1, 1]."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b).square().mean(dims))


@torch.no_grad()
def evaluate(vae, photos, frames, size, dtype):
    """Held-out photos, each under three motions -> mean PSNR, per photo, per frame."""
    specs = [
        motions.Spec(motion, light)
        for motion, light in (("zoom in", "none"), ("pan left", "sunset"), ("rotate clockwise", "none"))
    ]
    per_photo, per_frame, sheet = [], [], []
    for photo in photos:
        photo = F.interpolate(photo[None], size=(size, size), mode="bilinear", antialias=True)
        clip = motions.render_specs(photo.expand(len(specs), -1, -1, -1), specs, frames)
        out = vae_parallel.decode(vae, vae_parallel.encode(vae, clip, dtype), dtype)
        per_photo.append(psnr(out, clip).mean().item())
        per_frame.append(psnr(out, clip, (0, 1, 3, 4)))
        k = len(sheet) % len(specs)
        at = (0, frames // 2, frames - 1)
        sheet.append(torch.cat([x[k][:, f].clamp(-1, 1) for f in at for x in (clip, out)], -1))
    return (sum(per_photo) / len(per_photo), per_photo, torch.stack(per_frame).mean(0).tolist(), torch.cat(sheet, -2))


def save_png(image, path):
    from PIL import Image

    Image.fromarray(((image.permute(1, 2, 0).float() + 1) * 127.5).clamp(0, 255).byte().cpu().numpy()).save(path)


def main(args):
    world = World()
    device, dtype = world.device, world.dtype
    rng, shapes_rng = random.Random(1000 + world.rank), random.Random(7)
    _, photos = images.load_photos(f"{args.photos}/train", device)
    held_out_names, held_out = images.load_photos(f"{args.photos}/eval", device)
    size = 48 if args.tiny else 320
    pool = images.make_pool(photos, 40 if args.tiny else 9000, size, device, seed=world.rank)
    torch.manual_seed(1000 + world.rank)
    world.log("pool", tuple(pool.shape))
    if device.type == "cuda":
        vae_parallel.COMPILED["norm_silu"] = torch.compile(vae_parallel.norm_silu, dynamic=True)

    vae = initial_vae().to(device)
    if args.start:
        vae.load_state_dict({k: v.float() for k, v in torch.load(args.start, weights_only=True)["vae"].items()})
    world.same_weights(vae.parameters())
    gradient = FlatGradient(vae.parameters(), world)
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=device.type == "cuda"
    )
    options = TINY_SHAPES if args.tiny else SHAPES
    image_shape = (4, 1, 32, 32) if args.tiny else (64, 1, 128, 128)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    def step(shape, rate):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            clip = training_clip(pool, shape, rng)
        z = vae_parallel.encode(vae, clip, dtype)
        spread = z.detach().std((0, 2, 3, 4), keepdim=True)
        result = vae_parallel.decode(vae, z + torch.randn_like(z) * spread * LATENT_NOISE, dtype)
        loss, mse = reconstruction_loss(result, clip)
        (loss + 1e-4 * z.square().mean()).backward()
        gradient.finish()
        optimizer.step()
        gradient.zero()
        return mse

    def save(name):
        if world.rank == 0:
            state = {k: v.detach().to(torch.bfloat16).cpu() for k, v in vae.state_dict().items()}
            torch.save({"vae": state}, out / name)

    begin, iteration, saved, fraction, mse = world.elapsed(), 0, 0.0, 0.0, None
    image_seconds = 0 if args.start else args.image_seconds
    while fraction < 1:
        if iteration % 10 == 0:
            now = world.elapsed() - begin
            image_phase = now < image_seconds
            if not image_phase:
                fraction = (now - image_seconds) / (args.seconds - image_seconds)
            if iteration % (10 if args.tiny else 300) == 0:
                world.log(
                    f"it {iteration} {'images' if image_phase else 'clips'} {fraction:.2f} "
                    f"train {10 * math.log10(4 / mse.item()) if mse is not None else 0:.2f} dB"
                )
            if now - saved > 90:
                saved = now
                save("vae_running.pt")
                if world.rank == 0:
                    world.log(f"held out 17f {evaluate(vae, held_out, 17, 256, dtype)[0]:.2f} dB")
        warm = min(1.0, (iteration + 1) / 100)
        if image_phase:
            mse = step(image_shape, 2e-3 * warm)
        else:
            shape = shapes_rng.choices([s for s, _ in options], [w for _, w in options])[0]
            rate = args.rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(fraction, 1.0)) + 0.003)
            if iteration % 4 == 0:
                b = (2, 9, 32, 40) if args.tiny else (2, 17, *rng.choice([(256, 256), (192, 320), (320, 192)]))
                (args.border * border_loss(vae, pool, b, dtype)).backward()
            mse = step(shape, rate)
        iteration += 1

    if world.rank == 0:
        with torch.no_grad():
            latents = []
            for _ in range(2 if args.tiny else 60):
                shape = (2, 5, 32, 32) if args.tiny else (4, 17, 256, 256)
                latents.append(vae_parallel.encode(vae, training_clip(pool, shape, rng), dtype))
            z = torch.cat(latents)
            fold_statistics(vae, z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4)))
        save("vae.pt")
        vae.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in vae.state_dict().items()})
        report = {"iterations": iteration, "seconds": args.seconds, "gpus": world.size}
        for frames, s in ((5, 48),) if args.tiny else ((17, 256), (33, 256)):
            mean, per_photo, per_frame, sheet = evaluate(vae, held_out, frames, s, dtype)
            report[f"{frames}f_{s}px"] = dict(
                mean=round(mean, 2),
                frames=[round(x, 2) for x in per_frame],
                photos={name: round(x, 2) for name, x in zip(held_out_names, per_photo, strict=True)},
            )
            world.log(frames, s, json.dumps(report[f"{frames}f_{s}px"]))
            save_png(sheet, out / f"vae_{frames}.png")
        report["border_loss"] = border_loss_report(vae, pool, dtype, args.tiny)
        (out / "vae.json").write_text(json.dumps(report, indent=1) + "\n")
        world.log("done", iteration, "iterations, border", report["border_loss"])
    world.barrier()


@torch.no_grad()
def border_loss_report(vae, pool, dtype, tiny):
    """How far the grey frames' latents are from constant over space, relative to their deviation."""
    h, w = (32, 40) if tiny else (256, 256)
    clip = torch.zeros(4, 3, 9 if tiny else 17, h, w, device=pool.device)
    clip[:, :, 0] = F.interpolate(pool[:4].float(), size=(h, w))
    z = vae_parallel.normalise(vae_parallel.encode(vae, clip, dtype), vae)[:, :, 2:]
    across = z.std((3, 4)).mean().item()
    content = z.std(0).mean().item()
    return {"spatial_deviation": round(across, 3), "deviation_between_photos": round(content, 3)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--image-seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=1.8e-3)
    parser.add_argument("--border", type=float, default=0.03)
    parser.add_argument("--start", help="continue from this checkpoint")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script on a CPU")
    main(parser.parse_args())
