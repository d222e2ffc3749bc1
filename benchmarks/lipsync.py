"""Frames per second of the lip-sync pass at full size, on random weights: python benchmarks/lipsync.py

MuseTalk 1.5's sizes (UNet of 850 M parameters, Stable Diffusion's VAE, Whisper tiny) need no download to be timed.
Three tables: the work of one face, counted; the networks alone at several batch sizes; the whole pass (80 frames of
480x480 under 20 s of sound at 16 fps), with pasting and the copy back to the host. The last line is JSON.

--toy takes networks that a CPU runs in seconds, to try the script itself.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wan_ui.lipsync.faces import MEAN_FIVE, Face, landmarks_from_five  # noqa: E402
from wan_ui.lipsync.musetalk import WINDOW, MuseTalk  # noqa: E402
from wan_ui.lipsync.parsing import BiSeNet, BiSeNetParser, LandmarkParser  # noqa: E402
from wan_ui.lipsync.speech import LipSync  # noqa: E402
from wan_ui.lipsync.whisper import MelSpectrogram, WhisperEncoder  # noqa: E402
from wan_ui.media.sound import SAMPLE_RATE  # noqa: E402

UNET = {
    "in_channels": 8, "out_channels": 4, "sample_size": 64, "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 384, "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 256,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
WHISPER = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
TOY_UNET = {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 64, "attention_head_dim": 4}
TOY_VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 64}
TOY_WHISPER = {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}


class FixedFace:
    """A face that wanders: what is timed is the pass, not the detector."""

    name = "fixed"

    def __init__(self):
        self._seen = 0

    def detect(self, image: np.ndarray) -> list[Face]:
        x, y, size = 200 + self._seen % 40, 220, 180
        self._seen += 1
        box = (x - size / 2, y - 0.4 * size, x + size / 2, y + 0.8 * size)
        return [Face(box, landmarks_from_five(box, MEAN_FIVE * size / 2.2 + (x, y)), 1.0)]


def build(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> MuseTalk:
    torch.manual_seed(0)
    toy = arguments.toy
    with torch.device(device):
        unet = UNet2DConditionModel(**(UNET | (TOY_UNET if toy else {})))
        vae = AutoencoderKL(**(VAE | (TOY_VAE if toy else {})))
        encoder = WhisperEncoder(**(TOY_WHISPER if toy else WHISPER))
    musetalk = MuseTalk(unet, vae, encoder, MelSpectrogram(), device, dtype)
    if arguments.nchw:
        musetalk.memory_format = torch.contiguous_format
        musetalk.unet.to(memory_format=torch.contiguous_format)
        musetalk.vae.to(memory_format=torch.contiguous_format)
    return musetalk


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(call, device: torch.device, at_least: float) -> float:
    """Mean of as many calls as fit into `at_least` seconds, after three that warm up."""
    for _ in range(3):
        call()
    synchronize(device)
    runs, started = 0, time.perf_counter()
    while True:
        for _ in range(4):
            call()
        runs += 4
        synchronize(device)
        if time.perf_counter() - started > at_least:
            return (time.perf_counter() - started) / runs


def count_gflop(call) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def matmul_tflops(device: torch.device, dtype: torch.dtype, at_least: float) -> float:
    """What this device reaches on a large matrix product: the roof for what follows."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, at_least) / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="small networks, to try the script on a CPU")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="")
    parser.add_argument("--nchw", action="store_true", help="without channels_last")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN time its algorithms for each shape")
    parser.add_argument("--compile", action="store_true", help="torch.compile UNet and VAE decoder (minutes, once)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each measurement")
    parser.add_argument("--speech", type=float, default=20.0, help="seconds of sound in the whole pass")
    arguments = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    torch.backends.cudnn.benchmark = arguments.cudnn_benchmark
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    musetalk = build(arguments, device, dtype)
    parameters = sum(p.numel() for p in musetalk.unet.parameters()) / 1e6
    roof = matmul_tflops(device, dtype, arguments.seconds)
    result = {"device": name, "dtype": str(dtype), "torch": torch.__version__, "matmul_tflops": round(roof, 1)}
    result |= {flag: getattr(arguments, flag) for flag in ("toy", "nchw", "cudnn_benchmark", "compile")}
    print(f"{name}, {dtype}, torch {torch.__version__}; a large matrix product: {roof:.1f} TFLOP/s")

    rng = np.random.default_rng(0)
    face = rng.integers(0, 256, (1, musetalk.side, musetalk.side, 3), dtype=np.uint8)
    latents = musetalk.see(face)
    window = torch.randn(1, WINDOW * musetalk.layers, musetalk.width, device=device)
    with torch.inference_mode():
        unet = count_gflop(lambda: musetalk.unet(latents, musetalk._timestep, window.to(dtype)))
        decode = count_gflop(lambda: musetalk.vae.decode(latents[:, :4]))
        encode = count_gflop(
            lambda: musetalk.vae.encode(torch.zeros(1, 3, *face.shape[1:3], device=device, dtype=dtype))
        )
    result["gflop"] = {"unet": round(unet, 1), "decode": round(decode, 1), "encode": round(encode, 1)}
    print(
        f"one face: UNet ({parameters:.0f} M parameters) {unet:.1f} GFLOP, decode {decode:.1f}, encode 2 x {encode:.1f}"
    )

    if arguments.compile:
        musetalk.unet = torch.compile(musetalk.unet)
        musetalk.vae.decoder = torch.compile(musetalk.vae.decoder)
    print(f"\n{'batch':>6} {'frames/s':>9} {'UNet ms':>8} {'decode ms':>10} {'TFLOP/s':>8} {'of roof':>8} {'GiB':>6}")
    result["networks"] = []
    for batch in arguments.batches:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        many, windows = latents.repeat(batch, 1, 1, 1), window.repeat(batch, 1, 1)
        audio = windows.to(dtype)
        with torch.inference_mode():
            spent = seconds(lambda: musetalk.speak(many, windows), device, arguments.seconds)  # noqa: B023
            drawing = seconds(
                lambda: musetalk.unet(many, musetalk._timestep, encoder_hidden_states=audio),  # noqa: B023
                device,
                arguments.seconds / 2,
            )
        memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        reached = (unet + decode) * batch / spent / 1e3
        row = {"batch": batch, "fps": batch / spent, "unet_ms": 1e3 * drawing / batch}
        row |= {
            "decode_ms": 1e3 * (spent - drawing) / batch,
            "tflops": reached,
            "of_roof": reached / roof,
            "gib": memory,
        }
        result["networks"].append({key: round(value, 3) for key, value in row.items()})
        print(
            f"{batch:6} {row['fps']:9.1f} {row['unet_ms']:8.2f} {row['decode_ms']:10.2f} {reached:8.2f} "
            f"{reached / roof:8.0%} {memory:6.1f}"
        )

    best = max(result["networks"], key=lambda row: row["fps"])["batch"]
    lipsync = LipSync(
        musetalk, FixedFace(), LandmarkParser() if arguments.toy else BiSeNetParser(BiSeNet(), device), batch=best
    )
    coarse = torch.from_numpy(rng.integers(0, 256, (80, 3, 12, 12)).astype(np.float32))
    frames = torch.nn.functional.interpolate(coarse, (480, 480), mode="bilinear").byte().permute(0, 2, 3, 1).numpy()
    frames = np.ascontiguousarray(frames)
    samples = rng.normal(0, 0.1, round(arguments.speech * SAMPLE_RATE)).astype(np.float32)
    started = time.perf_counter()
    faces = lipsync.prepare(frames, lambda progress: None)
    prepared = time.perf_counter() - started
    for _ in lipsync.speak(frames, 16, samples[: 3 * SAMPLE_RATE], lambda progress: None, faces):
        pass  # warm
    started, count = time.perf_counter(), 0
    for _ in lipsync.speak(frames, 16, samples, lambda progress: None, faces):
        count += 1
    spent = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result["pass"] = {"batch": best, "frames": count, "fps": round(count / spent, 1), "prepare_s": round(prepared, 2)}
    result["pass"]["host_gib"] = round(peak, 2)
    print(
        f"\nwhole pass, batch {best}: {count} frames of 480x480 in {spent:.2f} s, {count / spent:.1f} frames/s; "
        f"before it {prepared:.2f} s for 80 base frames; host memory {peak:.2f} GiB"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
