"""Fit the linear map from latents to colours that live previews use, and write it to wan_tiny.json.

    python preview.py --model assets/wan-tiny --photos PHOTOS/train

One latent pixel covers 8 x 8 pixels and four frames; least squares finds the 16 -> RGB map
that best gives their mean colour. `preview["rgb"]` is (16, 3) and `preview["bias"]` (3,), from
latents in the experts' space (normalised by Wan2.1's statistics) to colours in [-1, 1].
"""

import argparse
import json
import random
import re
from pathlib import Path

import export
import images
import motions
import prompts
import torch
import torch.nn.functional as F
import vae_parallel


@torch.no_grad()
def fit(vae, photos, seed=0):
    rng, inputs, colours = random.Random(seed), [], []
    for photo in photos:
        photo = F.interpolate(photo[None], size=(128, 128), mode="bilinear", antialias=True)
        clip = motions.render_specs(photo, [prompts.sample_spec(rng)], 9)
        z = vae_parallel.normalise(vae_parallel.encode(vae, clip), vae)
        rgb = F.avg_pool3d(clip, (1, 8, 8))
        rgb = torch.cat([rgb[:, :, :1], F.avg_pool3d(rgb[:, :, 1:], (4, 1, 1))], 2)
        inputs.append(z.permute(0, 2, 3, 4, 1).reshape(-1, 16))
        colours.append(rgb.permute(0, 2, 3, 4, 1).reshape(-1, 3))
    x = torch.cat(inputs)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    y = torch.cat(colours)
    weights = torch.linalg.lstsq(x, y).solution
    print(
        f"preview: {len(x)} latent pixels, rms error {(x @ weights - y).square().mean().sqrt():.3f} "
        f"of colours with deviation {y.std():.3f}"
    )
    return weights


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--photos", required=True)
    args = parser.parse_args()
    weights = fit(export.load(args.model)[0], images.load_photos(args.photos, "cpu")[1])
    path = args.model / "wan_tiny.json"
    config = json.loads(path.read_text())
    config["preview"] = {
        "rgb": [[round(v, 4) for v in row] for row in weights[:16].tolist()],
        "bias": [round(v, 4) for v in weights[16].tolist()],
    }
    text = json.dumps(config, indent=2)
    text = re.sub(r"\[\s+(-?\d[^\[\]]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)  # a row a line
    path.write_text(text + "\n")
