"""How well the mouth follows held-out speech on held-out faces: correlations, a JSON line and a picture.

The opening of an output frame is that of the most similar one among pictures of the same face whose
mouth the drawing program opened by known amounts. On a photo, where there is no such scale, it is how far the
mouth's region is from the frame that silence gives.

    python tools/musetalk_tiny/evaluate.py --model FOLDER --photos FOLDER --out FOLDER
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from architecture import SCALING, SIDE, build, hear, log_mel, masked, start_from, tokens
from faces import draw_faces, load_photos, photograph
from mouth import open_mouth
from PIL import Image
from speech import HOP, envelope, render, write_tracks

FPS = 16
SECONDS = 6
LEVELS = torch.linspace(0, 1, 21)
# Held-out portraits: file under `eval` beside the training photos, and the face box.
HELD_OUT = {"astronaut.jpg": (178, 60, 272, 192)}


def held_out_speech(count: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Sound (count, samples) with a second of silence at both ends, and the lips' opening (count, frames at 50 Hz)."""
    rng = np.random.default_rng(990_000)
    tracks = np.stack([write_tracks(rng, SECONDS) for _ in range(count)])
    for column in (1, 5, 8):
        tracks[:, :100, column] = tracks[:, -100:, column] = 0
    sound = render(torch.from_numpy(tracks).to(device), torch.Generator(device).manual_seed(990_000))
    return sound, torch.from_numpy(tracks[:, ::2, 8].copy())


@torch.no_grad()
def speak(vae, unet, whisper, reference: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
    """One face (3, SIDE, SIDE) in -1..1 and one sound (samples,) -> frames (T, 3, SIDE, SIDE) in 0..1, on the CPU."""
    frames = int(len(sound) / (HOP * 100) * FPS)
    padded = torch.nn.functional.pad(sound, (0, 480_000 - len(sound)))[None]
    heard = hear(whisper, log_mel(padded))
    heard[:, len(sound) // 320 :] = 0
    at = (torch.arange(frames, device=sound.device) * 50 / FPS + 0.5).long()[None]
    words = tokens(heard, at)
    seen = SCALING * vae.encode(torch.stack([masked(reference[None])[0], reference])).latent_dist.mode()
    pair = torch.cat([seen[:1], seen[1:]], 1)
    result = []
    for part in words.split(16):
        drawn = unet(pair.expand(len(part), -1, -1, -1), torch.zeros(1, device=sound.device), part).sample
        result.append((vae.decode(drawn / SCALING).sample / 2 + 0.5).clamp(0, 1).cpu())
    return torch.cat(result)


def correlation(a, b) -> float:
    a, b = np.asarray(a, float), np.asarray(b, float)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else 0.0


@torch.no_grad()
def evaluate(vae, unet, whisper, photos, out: Path, device, clips: int = 12) -> dict:
    torch.manual_seed(990_000)
    vae, unet, whisper = vae.float().eval(), unet.float().eval(), whisper.float().eval()
    sounds, lips = held_out_speech(clips + len(HELD_OUT), device)
    base, mouth = draw_faces(clips, SIDE, device, photos)
    zero = torch.zeros(clips, device=device)
    scale = photograph([open_mouth(base, mouth, zero + float(level), zero) for level in LEVELS])
    frames = int(SECONDS * FPS)
    times = np.arange(frames) / FPS
    rows, sheet = [], []
    show = np.linspace(18, frames - 18, 10).astype(int)
    for index in range(clips):
        drawn = speak(vae, unet, whisper, scale[0][index] * 2 - 1, sounds[index])
        known = torch.stack([level[index] for level in scale]).cpu()
        left, top = (int((mouth[k][index].item() - r) * SIDE) for k, r in (("x", 0.28), ("y", 0.1)))
        area = (slice(None), slice(None), slice(max(top, 0), top + 80), slice(max(left, 0), left + 144))
        distance = (drawn[area][:, None] - known[area][None]).abs().mean((2, 3, 4))
        opening = LEVELS[distance.argmin(1)].numpy()
        wanted = lips[index][(times * 50).astype(int)].numpy()
        loud = envelope(sounds[index].cpu().numpy(), times)
        outside = known[0][:, SIDE // 2 :].clone()
        rows.append(
            {
                "envelope": correlation(opening, loud),
                "lips": correlation(opening, wanted),
                "lips_envelope": correlation(wanted, loud),
                "silent": float(opening[wanted < 0.02].mean()),
                "speaking": float(opening[wanted > 0.5].mean()),
                "upper_psnr": psnr(drawn[:, :, : SIDE // 2 - 8], known[0][:, : SIDE // 2 - 8]),
                "closed_psnr": psnr(drawn[wanted < 0.02][:, :, SIDE // 2 :], outside),
            }
        )
        true = known[(torch.from_numpy(wanted[show]) * 20).round().long()]
        sheet += [torch.cat([known[0], *drawn[show]], 2), torch.cat([known[0], *true], 2)]
    for index, (name, box) in enumerate(HELD_OUT.items()):
        path = next(
            (p for p in (Path(photos.folder).parent / "eval" / name, Path(photos.folder) / name) if p.is_file()), None
        )
        if path is None:
            continue
        crop = Image.open(path).convert("RGB").crop(box).resize((SIDE, SIDE), Image.LANCZOS)
        face = torch.from_numpy(np.asarray(crop).copy()).permute(2, 0, 1).to(device) / 127.5 - 1
        sound = sounds[clips + index]
        drawn = speak(vae, unet, whisper, face, sound)
        lower = drawn[:, :, SIDE // 2 :]
        moved = (lower - lower[:8].mean(0)).abs().mean((1, 2, 3)).numpy()
        rows.append({"photo": name, "envelope": correlation(moved, envelope(sound.cpu().numpy(), times))})
        sheet.append(torch.cat([(face.cpu() + 1) / 2, *drawn[show]], 2))
    keys = ("envelope", "lips", "lips_envelope", "silent", "speaking", "upper_psnr", "closed_psnr")
    drawn_rows = [row for row in rows if "photo" not in row]
    result = {"mean": {key: round(float(np.mean([row[key] for row in drawn_rows])), 4) for key in keys}}
    result["worst_envelope"] = round(min(row["envelope"] for row in drawn_rows), 4)
    result["clips"] = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    (out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    image = Image.fromarray((torch.cat(sheet, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    image.resize((image.width // 2, image.height // 2), Image.LANCZOS).save(out / "sheet.png")
    print(json.dumps({**result["mean"], "worst_envelope": result["worst_envelope"]}), flush=True)
    print("photos", [row for row in rows if "photo" in row], flush=True)
    return result


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean() + 1e-9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    vae, unet, whisper = build()
    start_from(args.model, vae, unet, whisper)
    args.out.mkdir(parents=True, exist_ok=True)
    evaluate(vae, unet, whisper, load_photos(args.photos, "cpu"), args.out, "cpu")


if __name__ == "__main__":
    main()
