"""Measure every bar of Wan-Tiny on photos it never saw, from the exported files, on a CPU or GPU.

    python evaluate.py --model assets/wan-tiny --photos PHOTOS/eval --out DIR [--only PART ...] [--count N]

Writes DIR/report-PART.json and a contact sheet. The parts (a clip takes about 6 s of one CPU core):
  sheet      12 clips, five frames each, to look at
  vae        decode(encode(clip)) against the clip: mean PSNR at 17 frames, per frame at 33
  motions    the 4-step clip against the procedural target, per motion at default strength,
             over the product's sizes, and its first frame against the upload; the same for `lights`,
             and `long` at 33 frames
  directions 200 random (photo, prompt) pairs: the motion that best explains the output's
             measured flow must be the one asked for (see `measured_motion`)
"""

import argparse
import itertools
import json
import random
import time
from pathlib import Path

import export
import images
import motions
import numpy as np
import prompts
import torch
import torch.nn.functional as F
import vae_parallel
from architecture import BOUNDARY, SIGMAS, SIZES
from train_vae import psnr, save_png


class Model:
    """The exported model under the product's sampler; the VAE by the parallel forward (equal to diffusers')."""

    def __init__(self, root, device, dtype):
        self.vae, experts, self.text, self.tokenizer = export.load(root)
        self.device, self.dtype = device, dtype
        self.vae.to(device)
        self.text.to(device)
        self.experts = {k: e.to(device, dtype) for k, e in experts.items()}

    @torch.no_grad()
    def embed(self, texts):
        t = self.tokenizer(texts, padding="max_length", max_length=512, truncation=True, return_tensors="pt")
        mask = t.attention_mask.to(self.device)
        longest = int(mask.sum(1).max())  # the rest is zero either way
        h = self.text(t.input_ids[:, :longest].to(self.device), mask[:, :longest]).last_hidden_state
        return F.pad(h * mask[:, :longest, None], (0, 0, 0, 512 - longest)).to(self.dtype)

    @torch.no_grad()
    def condition(self, photo, frames):
        """photo (1, 3, H, W) -> (1, 20, t, h, w)"""
        clip = photo.new_zeros(1, 3, frames, *photo.shape[-2:])
        clip[:, :, 0] = photo
        z = vae_parallel.normalise(vae_parallel.encode(self.vae, clip, self.dtype), self.vae)
        mask = z.new_zeros(1, 4, *z.shape[2:])
        mask[:, :, 0] = 1
        return torch.cat([mask, z], 1)

    @torch.no_grad()
    def generate(self, condition, texts, seed=0, sigmas=SIGMAS, chunk=4):
        """One clip per text -> (n, 3, T, H, W), clamped."""
        out = []
        for i in range(0, len(texts), chunk):
            h = self.embed(texts[i : i + chunk])
            c = condition.expand(len(h), -1, -1, -1, -1)
            g = torch.Generator().manual_seed(seed + i)
            x = torch.randn(len(h), 16, *c.shape[2:], generator=g).to(self.device)
            for t, following in itertools.pairwise(sigmas):
                expert = self.experts["high" if t >= BOUNDARY else "low"]
                time_ = torch.full((len(h),), t * 1000, device=self.device)
                v = expert(
                    torch.cat([x, c], 1).to(self.dtype), timestep=time_, encoder_hidden_states=h, return_dict=False
                )[0].float()
                x = x + (following - t) * v
            for z in x.split(1):
                raw = vae_parallel.denormalise(z, self.vae)
                out.append(vae_parallel.decode(self.vae, raw, self.dtype).clamp(-1, 1))
        return torch.cat(out)

    @torch.no_grad()
    def reconstruct(self, clip):
        return vae_parallel.decode(self.vae, vae_parallel.encode(self.vae, clip, self.dtype), self.dtype).clamp(-1, 1)


def resize(photo, height, width):
    """Centre crop to the aspect, then scale: what the product does with an upload."""
    h, w = photo.shape[-2:]
    s = min(h / height, w / width)
    ch, cw = int(height * s), int(width * s)
    y, x = (h - ch) // 2, (w - cw) // 2
    return F.interpolate(photo[None, :, y : y + ch, x : x + cw], size=(height, width), mode="bilinear", antialias=True)


def measured_motion(clip):
    """clip (3, T, H, W) -> (zoom, rot, tx, ty) of the last frame, by dense flow and a robust similarity fit.

    In the conventions of motions.py. The flow is composed over steps of four frames (the
    whole motion at once is too far for it); brightness is equalised first, since lights change it.
    """
    import cv2

    grey = ((clip.mean(0) + 1) * 127.5).clamp(0, 255).byte().cpu().numpy()
    grey = [cv2.createCLAHE(2.0, (4, 4)).apply(g) for g in grey]
    h, w = grey[0].shape
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    total = np.eye(3)
    ys, xs = np.mgrid[4 : h - 4 : 4, 4 : w - 4 : 4].reshape(2, -1)
    frames = [*list(range(0, len(grey) - 1, 4)), len(grey) - 1]
    for a, b in itertools.pairwise(frames):
        flow = finder.calc(grey[a], grey[b], None)
        source = np.stack([xs, ys], 1).astype(np.float64)
        texture = sum(np.abs(cv2.Sobel(grey[a], cv2.CV_32F, i, 1 - i))[ys, xs] for i in (0, 1))
        keep = texture > np.percentile(texture, 40)
        m, _ = cv2.estimateAffinePartial2D(source[keep], source[keep] + flow[ys, xs][keep], ransacReprojThreshold=1.0)
        total = np.vstack([m if m is not None else np.eye(3)[:2], [0, 0, 1]]) @ total
    # content moved by `total` in pixels; the window moved by its inverse
    centre = np.array([w / 2, h / 2, 1.0])
    dx, dy = (total @ centre - centre)[:2] / (h / 2)
    return (
        float(np.log(np.hypot(total[0, 0], total[1, 0]))),
        float(-np.arctan2(total[1, 0], total[0, 0])),
        float(-dx),
        float(-dy),
    )


DIRECTIONS = {
    "zoom in": (0, 1),
    "zoom out": (0, -1),
    "rotate counterclockwise": (1, 1),
    "rotate clockwise": (1, -1),
    "pan right": (2, 1),
    "pan left": (2, -1),
    "pan down": (3, 1),
    "pan up": (3, -1),
}


def direction_of(motion):
    """(zoom, rot, tx, ty) -> the named motion whose template it points to best."""
    unit = np.array([0.26, 0.20, 0.28, 0.28])
    best, name = -1e9, None
    for candidate in DIRECTIONS:
        row = motions.MOTIONS[candidate]
        t = np.array([row.get(k, 0.0) for k in ("zoom", "rot", "tx", "ty")]) / unit
        score = float((np.array(motion) / unit) @ t / np.linalg.norm(t))
        if score > best:
            best, name = score, candidate
    return name


def vae_bar(model, photos, frames, size):
    means, per_frame = [], []
    specs = [
        motions.Spec(motion, light)
        for motion, light in (("zoom in", "none"), ("pan left", "sunset"), ("rotate clockwise", "none"))
    ]
    for photo in photos:
        photo = resize(photo, size, size)
        for spec in specs:
            clip = motions.render_specs(photo, [spec], frames)
            out = model.reconstruct(clip)
            means.append(psnr(out, clip).item())
            per_frame.append(psnr(out, clip, (0, 1, 3, 4)))
    per_photo = np.array(means).reshape(len(photos), -1).mean(1).round(2).tolist()
    return {
        "mean": round(float(np.mean(means)), 2),
        "per_photo": per_photo,
        "per_frame": [round(x, 2) for x in torch.stack(per_frame).mean(0).tolist()],
    }


def clip_bar(model, photos, shapes, names, make_spec, seed=1):
    """PSNR of 4-step clips against the target -> per name, averaged over photos; and of the first frames."""
    rng = random.Random(seed)
    scores, frozen, first = {n: [] for n in names}, {n: [] for n in names}, []
    for i, photo in enumerate(photos):
        frames, h, w = shapes[i % len(shapes)]
        photo = resize(photo, h, w)
        specs = [make_spec(n) for n in names]
        target = motions.render_specs(photo.expand(len(specs), -1, -1, -1), specs, frames)
        out = model.generate(model.condition(photo, frames), [prompts.write(s, rng) for s in specs], seed=i)
        for n, a, b, c in zip(
            names,
            psnr(out, target),
            psnr(out[:, :, :1], target[:, :, :1]),
            psnr(target[:, :, :1].expand_as(target), target),
            strict=True,
        ):
            scores[n].append(a.item())
            frozen[n].append(min(c.item(), 60))
            first.append(b.item())
    per = {n: round(float(np.mean(s)), 2) for n, s in scores.items()}
    return {
        "mean": round(float(np.mean(list(per.values()))), 2),
        "per": per,
        "worst_photo": {n: round(min(s), 2) for n, s in scores.items()},
        "frozen_frame": {n: round(float(np.mean(s)), 2) for n, s in frozen.items()},
        "first_frame": round(float(np.mean(first)), 2),
        "first_frame_worst": round(min(first), 2),
    }


def direction_bar(model, photos, photo_names, pairs, seed, record):
    """Random photo, size and prompt with a direction: is the output's measured direction the one asked for?"""
    rng = random.Random(seed)
    right, target_right, wrong, conditions = 0, 0, [], {}
    for i in range(pairs):
        k = rng.randrange(len(photos))
        h, w = rng.choice(SIZES)
        photo = resize(photos[k], h, w)
        if (k, h, w) not in conditions:
            conditions[k, h, w] = model.condition(photo, 17)
        while True:
            spec = prompts.sample_spec(rng)
            if spec.motion in DIRECTIONS:
                break
        text = prompts.write(spec, rng)
        out = model.generate(conditions[k, h, w], [text], seed=i)[0]
        found = direction_of(measured_motion(out))
        ideal = direction_of(measured_motion(motions.render_specs(photo, [spec], 17)[0]))
        right += found == spec.motion
        target_right += ideal == spec.motion
        if found != spec.motion:
            wrong.append(
                {"photo": photo_names[k], "prompt": text, "wanted": spec.motion, "found": found, "on_target": ideal}
            )
        report = {
            "pairs": i + 1,
            "right": round(right / (i + 1), 4),
            "right_on_the_targets_themselves": round(target_right / (i + 1), 4),
            "wrong": wrong,
        }
        if i % 10 == 9:
            record(report)
    return report


def sheet(model, photos, names, rows, path, frames=17):
    """rows of (photo name, height, width, prompt) -> a PNG, five frames of each clip."""
    out = []
    for i, (name, h, w, text) in enumerate(rows):
        photo = resize(photos[names.index(name)], h, w)
        clip = model.generate(model.condition(photo, frames), [text], seed=i)[0]
        strip = torch.cat([clip[:, round(f * (frames - 1) / 4)] for f in range(5)], -1)
        out.append(F.interpolate(strip[None], size=(192, int(192 * strip.shape[-1] / h)), mode="area")[0])
    width = max(x.shape[-1] for x in out)
    save_png(torch.cat([F.pad(x, (0, width - x.shape[-1]), value=1.0) for x in out], -2), path)


SHEET = [
    ("astronaut", 256, 256, "An astronaut smiles, the camera slowly zooms in"),
    ("chelsea", 256, 256, "a cat, the camera zooms out"),
    ("coffee", 256, 256, "A cup of coffee on a wooden table, rotate clockwise"),
    ("rocket", 320, 192, "A rocket on the launch pad, the camera pans up, golden hour"),
    ("sunset1", 192, 320, "waves roll over the picture, sunset"),
    ("sunset2", 192, 320, "The camera pans right, night falls"),
    ("forest1", 256, 256, "swaying in the wind, fog rolls in"),
    ("seeding", 256, 256, "the wind blows, warm evening light"),
    ("interior1", 192, 320, "the camera pans left"),
    ("interior2", 256, 256, "rotate to the left, in black and white"),
    ("courtyard1", 256, 256, "a handheld shot, old film"),
    ("camera", 256, 256, "a man with a camera on the left of the picture"),
]


def main(args):
    start = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Model(args.model, device, torch.bfloat16)
    args.out.mkdir(parents=True, exist_ok=True)
    names, photos = images.load_photos(args.photos, device)
    shapes = [(17, h, w) for h, w in ((256, 256), (192, 320), (320, 192))]
    some, some_names = photos[: args.count], names[: args.count]
    parts = {
        "sheet": lambda: sheet(model, photos, names, SHEET, args.out / "sheet.png"),
        "vae": lambda: {"17 frames": vae_bar(model, some, 17, 256), "33 frames": vae_bar(model, some[:3], 33, 256)},
        "motions": lambda: clip_bar(model, some, shapes, list(motions.MOTIONS), motions.Spec),
        "lights": lambda: clip_bar(model, some, shapes, list(motions.LIGHTS), lambda n: motions.Spec("gentle", n)),
        "long": lambda: clip_bar(model, some, [(33, h, w) for _, h, w in shapes], list(motions.MOTIONS), motions.Spec),
        "directions": lambda: direction_bar(
            model, photos, names, args.pairs, args.seed, lambda r: record("directions", r)
        ),
    }

    def record(part, report):
        (args.out / f"report-{part}.json").write_text(json.dumps(report, indent=1) + "\n")

    for part in args.only or parts:
        report = parts[part]()
        if report:
            record(part, {"photos": some_names, **report} if part != "directions" else report)
        print(f"[{time.time() - start:5.0f}s] {part}", json.dumps(report)[:2000], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=77, help="of the random pairs")
    parser.add_argument("--count", type=int, help="the first so many photos")
    parser.add_argument("--only", nargs="*", help="parts")
    main(parser.parse_args())
