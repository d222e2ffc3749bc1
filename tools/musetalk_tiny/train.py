"""Train the small MuseTalk on one GPU: VAE, then ears, then the mouth. About nine minutes on an H200.

1. VAE: drawn faces and photo crops, pixels only. Afterwards its 1x1 convolutions absorb the latents'
   standard deviation, so that stable diffusion's factor 0.18215 holds.
2. Ears: Whisper's encoder alone reads opening and spread of the lips off every 20 ms.
3. Mouth: UNet, encoder and the VAE's decoder together, pixels through the decoder; the VAE's encoder is frozen.

    python tools/musetalk_tiny/train.py --photos FOLDER --out FOLDER [--vae 150 --ears 40 --mouth 320]

Seconds are wall clock; every phase decays its learning rate to zero by the clock, so it may be stopped
and shortened without another schedule.
"""

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from architecture import SCALING, SIDE, build, hear, masked, norm_in_half, save, start_from, tokens
from data import SpeechBank, face_pairs, write_bank
from evaluate import evaluate
from faces import load_photos


def rate_at(done: float, peak: float, warm: float = 0.04) -> float:
    """Linear warm-up, then a cosine to zero; `done` 0..1."""
    if done < warm:
        return peak * done / warm
    return peak * 0.5 * (1 + math.cos(math.pi * min((done - warm) / (1 - warm), 1)))


class Phase:
    """The clock, the optimizer and the log of one phase."""

    def __init__(self, name: str, parameters, seconds: float, peak: float, device, gentle=()):
        """`gentle` parameters learn at a third of the pace."""
        self.name, self.seconds, self.device = name, seconds, device
        kinds = [[p for p in some if p.requires_grad] for some in (parameters, gentle)]
        self.parameters = kinds[0] + kinds[1]
        fused = torch.device(device).type == "cuda"
        groups = [{"params": some, "peak": peak * k} for some, k in zip(kinds, (1, 0.33), strict=True) if some]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-9, betas=(0.9, 0.97), weight_decay=0.01, fused=fused)
        self.start, self.steps, self.shown, self.sums = time.monotonic(), 0, 0.0, {}

    def running(self) -> bool:
        return time.monotonic() - self.start < self.seconds

    def step(self, loss: torch.Tensor, **parts: torch.Tensor) -> None:
        done = (time.monotonic() - self.start) / self.seconds
        for group in self.optimizer.param_groups:
            group["lr"] = max(rate_at(done, group["peak"]), 1e-9)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        for key, value in {"loss": loss, **parts}.items():
            self.sums[key] = self.sums.get(key, 0) + value.detach()
        if done - self.shown >= 0.05:
            self.shown = done
            means = {key: float(value) / self.counted() for key, value in self.sums.items()}
            words = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
            print(f"{self.name} {done * 100:3.0f}%  step {self.steps}  {words}", flush=True)
            self.sums, self.from_step = {}, self.steps

    def counted(self) -> int:
        return self.steps - getattr(self, "from_step", 0)


def picture_loss(drawn: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Charbonnier on pixels and on their gradients at two scales: the gradients keep lips and teeth sharp.

    And the mean colours of 16-pixel squares, since a patch of another hue shows most where the face is pasted back.
    """
    drawn, wanted = drawn.float(), wanted.float()
    loss = 2 * (F.avg_pool2d(drawn, 16) - F.avg_pool2d(wanted, 16)).abs().mean()
    for scale in (1, 2):
        if scale > 1:
            drawn, wanted = F.avg_pool2d(drawn, 2), F.avg_pool2d(wanted, 2)
            weight = F.avg_pool2d(weight, 2) if torch.is_tensor(weight) else weight
        error = drawn - wanted
        loss = loss + ((error.square() + 1e-5).sqrt() * weight).mean()
        across = (error[..., 1:] - error[..., :-1]).abs()
        down = (error[..., 1:, :] - error[..., :-1, :]).abs()
        if torch.is_tensor(weight):
            across, down = across * weight[..., 1:], down * weight[..., 1:, :]
        loss = loss + 0.7 * (across.mean() + down.mean())
    return loss


def train_vae(vae, photos, seconds: float, batch: int, device) -> None:
    phase = Phase("vae", vae.parameters(), seconds, 1.2e-3, device)
    while phase.running():
        opening, spread = torch.rand(batch, device=device), torch.rand(batch, device=device) * 2 - 1
        opening = opening * (torch.rand(batch, device=device) < 0.7)
        with torch.no_grad():
            picture, _, weight = face_pairs(opening, spread, photos)
            some = batch // 6  # whole photos: background, hair, clothes
            scene = photos.squares[torch.randint(len(photos.squares), (some,), device=device)].float() / 127.5 - 1
            picture[-some:] = F.interpolate(scene, (SIDE, SIDE), mode="bilinear")
            picture[: batch // 8] = masked(picture[: batch // 8])
            weight = 0.6 + 0.2 * weight
            weight[: batch // 8] = 0.3
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            latents = vae.encode(picture.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
            latents = latents + 0.03 * torch.randn_like(latents)
            drawn = vae.decode(latents).sample
        pixels = picture_loss(drawn, picture, weight)
        phase.step(pixels + 2e-4 * latents.float().square().mean(), pixels=pixels)


@torch.no_grad()
def normalise_latents(vae, photos, device) -> None:
    """Give the latents zero mean and standard deviation 1 / SCALING, without changing what the VAE does."""
    opening = torch.rand(64, device=device)
    picture, _, _ = face_pairs(opening, opening * 2 - 1, photos)
    latents = vae.encode(picture).latent_dist.mode()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALING
    # quant_conv makes 4 means and 4 log-variances; post_quant_conv reads the means back.
    vae.quant_conv.bias[:4] = (vae.quant_conv.bias[:4] - mean) / std
    vae.quant_conv.weight[:4] /= std.view(-1, 1, 1, 1)
    vae.post_quant_conv.bias += (vae.post_quant_conv.weight[..., 0, 0] * mean).sum(1)
    vae.post_quant_conv.weight *= std.view(1, -1, 1, 1)
    print("latents: mean", mean.tolist(), "std", (std / SCALING).tolist(), flush=True)


def train_ears(whisper, head, bank: SpeechBank, seconds: float, batch: int, device) -> None:
    phase = Phase("ears", [*whisper.encoder.parameters(), *head.parameters()], seconds, 2e-3, device)
    while phase.running():
        bank.renew()
        mel, lips, alive = bank.draw(batch)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            heard = hear(whisper, mel)
            said = head(heard.flatten(2))
        error = (said.float() - lips).square() * torch.tensor([1.0, 0.2], device=device) * alive[..., None]
        phase.step(error.mean(), opening=error[..., 0].mean())


def train_mouth(vae, unet, whisper, head, bank, photos, seconds, audios, frames, device) -> None:
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    trained = [*unet.parameters(), *whisper.encoder.parameters(), *head.parameters()]
    phase = Phase("mouth", trained, seconds, 1.0e-3, device, gentle=vae.parameters())
    kind = torch.device(device).type
    timestep = torch.zeros(1, dtype=torch.long, device=device)
    while phase.running():
        if phase.steps % 4 == 0:
            bank.renew()
        mel, lips, alive = bank.draw(audios)
        # Where the clip lasts: the silence it is padded with is hardly seen.
        last = alive.sum(1, keepdim=True)
        at = (torch.rand(audios, frames, device=device) * last).long()
        said = lips.gather(1, at[..., None].expand(-1, -1, 2)).flatten(0, 1)
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16):
            with torch.autocast(kind, enabled=False):
                target, reference, weight = face_pairs(said[:, 0], said[:, 1], photos)
            pictures = torch.cat([target, reference, masked(target)]).contiguous(memory_format=torch.channels_last)
            latents = SCALING * vae.encode(pictures).latent_dist.mode().float()
            wanted, seen, blind = latents.chunk(3)
        with torch.autocast(kind, torch.bfloat16):
            heard = hear(whisper, mel) * alive[..., None, None]  # beyond the end nothing is heard
            guess = head(heard.flatten(2))
            drawn = unet(torch.cat([blind, seen], 1), timestep, encoder_hidden_states=tokens(heard, at)).sample
            picture = vae.decode(drawn / SCALING).sample
            again = vae.decode(wanted[: -(-len(wanted) // 4)] / SCALING).sample
        near = (drawn.float() - wanted).abs()
        near = near[:, :, : near.shape[2] // 2].mean() * 0.3 + near[:, :, near.shape[2] // 2 :].mean()
        pixels = picture_loss(picture, target, weight)
        kept = picture_loss(again, target[: len(again)], weight[: len(again)])
        ears = ((guess.float() - lips).square() * alive[..., None]).mean()
        phase.step(pixels + 0.3 * kept + 0.3 * near + 0.3 * ears, pixels=pixels, kept=kept, latents=near, ears=ears)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=float, default=150, metavar="SECONDS")
    parser.add_argument("--ears", type=float, default=40, metavar="SECONDS")
    parser.add_argument("--mouth", type=float, default=320, metavar="SECONDS")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="go on from the weights of an earlier run")
    parser.add_argument("--clips", type=int, default=1024, help="spoken clips of 30 s")
    parser.add_argument("--batch", type=int, default=24, help="pictures of a VAE step")
    parser.add_argument("--audios", type=int, default=16, help="spoken clips of a mouth step")
    parser.add_argument("--frames", type=int, default=2, help="pictures per spoken clip")
    parser.add_argument("--processes", type=int, default=8)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    tracks = write_bank(args.clips, args.processes)
    print(f"{len(tracks)} clips written, {time.monotonic() - started:.0f} s", flush=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    bank = SpeechBank(tracks, device)
    photos = load_photos(args.photos, device)
    vae, unet, whisper = (model.to(device) for model in build())
    if args.start:
        start_from(args.start, vae, unet, whisper)
    torch.nn.GroupNorm.forward = norm_in_half
    vae.to(memory_format=torch.channels_last)
    unet.to(memory_format=torch.channels_last)
    head = torch.nn.Linear((whisper.config.encoder_layers + 1) * whisper.config.d_model, 2).to(device)
    print(f"ready, {time.monotonic() - started:.0f} s", flush=True)

    train_vae(vae, photos, args.vae, args.batch, device)
    normalise_latents(vae, photos, device)
    train_ears(whisper, head, bank, args.ears, 16, device)
    save(args.out / "musetalk-tiny", vae, unet, whisper)  # so that a phase cut short leaves something
    train_mouth(vae, unet, whisper, head, bank, photos, args.mouth, args.audios, args.frames, device)
    save(args.out / "musetalk-tiny", vae, unet, whisper)
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
    evaluate(vae, unet, whisper, photos, args.out, device)
    print(f"done, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
