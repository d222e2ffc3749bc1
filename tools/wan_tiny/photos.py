"""Assemble the photos Wan-Tiny is trained and judged on, with source and licence of each.

Every entry below is public domain or CC0 by the statement named beside it; nothing else
is used. The files come from ordinary packages, which the caller unpacks into one folder:

    apt-get download blender-data lomiri-wallpapers-16.04 wamerican-small
    npm pack @pmndrs/assets
    pip download --no-deps --python-version 3.10 --only-binary=:all: scipy==1.9.3
    pip download --no-deps matplotlib;  pip install scikit-image OpenEXR

    dpkg -x blender-data_*.deb SRC/blender-data            (likewise the other two)
    tar xzf pmndrs-assets-*.tgz -C SRC/pmndrs;  unzip scipy-*.whl -d SRC/scipy;  ... SRC/mpl

    python photos.py SRC OUT

OUT gets train/*.jpg (at most 1024 px), eval/*.jpg (512 px, never trained on), words.txt
and manifest.json. Panoramas are high dynamic range: they are tone-mapped here; the ones
for evaluation become perspective views.
"""

import base64
import bz2
import json
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

POLYHAVEN = "CC0, Poly Haven (Greg Zaal and others), via the npm package @pmndrs/assets (CC0)"
BLENDER = "CC0, HDRI Haven (Greg Zaal), via Blender's studio lights (license.txt beside them)"
SKIMAGE = "scikit-image's bundled data; "

# scikit-image file -> what its docstring states
SKIMAGE_TRAIN = {
    "brick.png": "CC0, CC0Textures",
    "grass.png": "CC0 (linolafett, DeviantArt)",
    "gravel.png": "CC0, CC0Textures",
    "hubble_deep_field.jpg": "public domain, NASA",
    "retina.jpg": "CC0, Wikimedia (Häggström 2014)",
    "cell.png": "CC0 (P. Müller et al. 2018)",
    "clock_motion.png": "public domain (Stefan van der Walt)",
    "text.png": "public domain",
    "microaneurysms.png": "CC0 (Andreas Maier)",
}
SKIMAGE_EVAL = {
    "astronaut.png": "public domain, NASA",
    "chelsea.png": "CC0 (Stefan van der Walt)",
    "coffee.png": "CC0 (Rachel Michetti)",
    "rocket.jpg": "public domain, SpaceX",
    "camera.png": "CC0 (Lav Varshney)",
}
# Blender panorama -> yaw and pitch (degrees) of the views kept for evaluation
PANORAMA_EVAL = {
    "courtyard": [(110, -8)],
    "interior": [(-95, -12), (75, -10)],
    "sunset": [(-35, -3), (145, 5)],
    "forest": [(-15, 0)],
}
PANORAMA_TRAIN_BLENDER = ["city", "night", "studio", "sunrise"]


def tone_map(radiance):
    """Linear radiance (H, W, 3) -> sRGB bytes: expose the upper quartile to 0.55, roll off, gamma."""
    radiance = np.nan_to_num(radiance, nan=1e4, posinf=1e4)
    x = radiance / (np.percentile(radiance.mean(-1), 75) + 1e-6) * 0.55
    x = np.clip(x / (1 + x / 3), 0, 1) ** (1 / 2.2)
    return (x * 255).astype(np.uint8)


def read_exr(path):
    import OpenEXR

    channels = OpenEXR.File(str(path)).channels()
    return next(iter(channels.values())).pixels[..., :3].astype(np.float32)


def read_packed_exr(path):
    """A JavaScript module whose default export is a base64 data URI of an EXR file."""
    source = Path(path).read_text(encoding="utf-8")
    start = source.index("base64,") + 7
    end = min(k for k in (source.find(q, start) for q in "\"'`") if k > 0)
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(base64.b64decode(source[start:end]))
        file.flush()
        return read_exr(file.name)


def perspective(panorama, yaw, pitch, size=512, fov=80):
    """A pinhole view (size, size, 3) into an equirectangular image."""
    h, w = panorama.shape[:2]
    f = 0.5 * size / np.tan(np.radians(fov) / 2)
    x, y = np.meshgrid(np.arange(size) - size / 2 + 0.5, np.arange(size) - size / 2 + 0.5)
    p, q = np.radians(pitch), np.radians(yaw)
    ray = np.stack([x, y, np.full_like(x, f)], -1) / np.sqrt(x * x + y * y + f * f)[..., None]
    ry = ray[..., 1] * np.cos(p) - ray[..., 2] * np.sin(p)
    rz = ray[..., 1] * np.sin(p) + ray[..., 2] * np.cos(p)
    longitude = np.arctan2(ray[..., 0], rz) + q
    latitude = np.arcsin(np.clip(ry, -1, 1))
    u = ((longitude / (2 * np.pi) + 0.5) % 1 * w).astype(np.float32)
    v = ((latitude / np.pi + 0.5) * h).astype(np.float32)
    return cv2.remap(panorama, u, v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)


def collect(source):
    """-> list of (split, name, RGB uint8 (H, W, 3), source and licence)."""
    import skimage

    bundled = Path(skimage.__file__).parent / "data"

    def rgb(p):
        return cv2.imread(str(p), cv2.IMREAD_COLOR)[..., ::-1]

    out = [("train", n, rgb(bundled / n), SKIMAGE + s) for n, s in SKIMAGE_TRAIN.items()]
    out += [("eval", n, rgb(bundled / n), SKIMAGE + s) for n, s in SKIMAGE_EVAL.items()]

    raw = bz2.decompress((source / "scipy/scipy/misc/face.dat").read_bytes())
    out.append(
        (
            "train",
            "raccoon",
            np.frombuffer(raw, np.uint8).reshape(768, 1024, 3),
            "public domain (public-domain-image.com), scipy.misc.face of SciPy 1.9",
        )
    )
    out.append(
        (
            "train",
            "grace_hopper",
            rgb(source / "mpl/matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
            "public domain (US Navy), Matplotlib's sample data",
        )
    )
    out.append(
        (
            "eval",
            "seeding",
            rgb(next(source.glob("lomiri*16.04/**/seeding_by_*.jpg"))),
            "CC0-1.0 (Clemens Engelhardt), Debian package lomiri-wallpapers-16.04",
        )
    )

    for path in sorted((source / "pmndrs/package/hdri").glob("*.exr.js")):
        out.append(("train", "panorama-" + path.name.split(".")[0], tone_map(read_packed_exr(path)), POLYHAVEN))
    world = next(source.glob("blender-data/**/studiolights/world"))
    for name in PANORAMA_TRAIN_BLENDER:
        out.append(("train", f"panorama-blender-{name}", tone_map(read_exr(world / f"{name}.exr")), BLENDER))
    for name, views in PANORAMA_EVAL.items():
        panorama = tone_map(read_exr(world / f"{name}.exr"))
        for i, (yaw, pitch) in enumerate(views):
            out.append(("eval", f"{name}{i + 1}", perspective(panorama, yaw, pitch), BLENDER))
    return out


def main(source, target):
    source, target = Path(source), Path(target)
    manifest = []
    for split, name, image, licence in collect(source):
        stem = name.split(".")[0]
        if name.startswith("panorama"):  # the poles are all distortion
            image = image[int(0.12 * len(image)) : int(0.9 * len(image))]
        limit = 1024 if split == "train" else 512
        if split == "eval":  # centre square
            s = min(image.shape[:2])
            y, x = (image.shape[0] - s) // 2, (image.shape[1] - s) // 2
            image = image[y : y + s, x : x + s]
        scale = limit / max(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        path = target / split / f"{stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 94])
        manifest.append({"split": split, "file": path.name, "size": list(image.shape[1::-1]), "source": licence})
    words = (source / "wamerican/usr/share/dict/american-english-small").read_text().split()
    words = [w for w in words if w.isalpha() and w.islower() and w.isascii() and 2 < len(w) < 11]
    (target / "words.txt").write_text("\n".join(words) + "\n")
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(manifest)} photos, {len(words)} words -> {target}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
