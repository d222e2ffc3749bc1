"""The small MuseTalk that ships, from a portrait and a voice to an MP4: python benchmarks/speech.py

One table: seconds a frame; then per frame rate how late the mouth is behind the sound, here and by upstream's
arithmetic (`compat`), and how far sound and picture are apart at both ends of the MP4. --minutes 5 makes a long
track instead and tells the memory it took. The last line is JSON.

How late: the shift at which the dark between the lips goes best with the voice's level, over all frames whose mouth the
network alone decides, and over those of the last third, where a wrong rate has added up.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wan_ui.engines.device import choose_dtype  # noqa: E402
from wan_ui.lipsync.choice import EMBEDDED  # noqa: E402
from wan_ui.lipsync.speech import LipSync  # noqa: E402
from wan_ui.media import muxer, sound  # noqa: E402
from wan_ui.reports.bench import machine  # noqa: E402

RATES = (12, 16, 24, 25, 30000 / 1001, 30)
LIPS = (slice(None), slice(136, 158), slice(108, 140))  # of assets/examples/portrait.jpg
SHIFTS = np.arange(-0.3, 0.3, 0.0025)  # seconds


def quiet(progress) -> None:
    pass


def lateness(frames: np.ndarray, samples: np.ndarray, fps: float) -> tuple[float, float]:
    """Milliseconds by which the mouth follows the voice: over all, and over the last third."""
    level = np.maximum(sound.levels(samples), -60.0)
    heard_at = (np.arange(len(level)) + 0.5) / sound.FEATURE_RATE
    shown_at = (np.arange(len(frames)) + 0.5) / fps  # the middle of the time that a frame is seen
    dark = -frames[LIPS].astype(np.float32).mean((1, 2, 3))
    free = sound.speech_gate(samples, fps, len(frames)) == 1
    found = []
    for part in (free, free & (shown_at > 2 / 3 * shown_at[-1])):
        likeness = [
            np.corrcoef(dark[part], np.interp(shown_at[part] - shift, heard_at, level))[0, 1] for shift in SHIFTS
        ]
        found.append(round(1000 * float(SHIFTS[int(np.argmax(likeness))]), 1))
    return found[0], found[1]


def ends(path: Path) -> dict[str, tuple[float, float]]:
    """{"v": (start, end), "a": (start, end)} in seconds, of what a player shows and plays of a file."""
    found = {}
    for kind in "va":
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-i", str(path)]
        command += ["-map", f"0:{kind}:0", "-f", "framecrc", "-"]  # decoded: AAC's run-up is cut off
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        per, base = next(map(int, re.match(r"#tb 0: (\d+)/(\d+)", line).groups()) for line in lines if "#tb" in line)
        times = [[int(value) for value in line.split(",")[2:4]] for line in lines if not line.startswith("#")]
        start, end = min(t for t, _ in times), max(t + length for t, length in times)
        found[kind] = start * per / base, end * per / base
    return found


def rates(musetalk: LipSync, portrait: np.ndarray, voice: Path, folder: Path) -> list[dict]:
    samples, rows = sound.decode(voice), []
    upstream = LipSync(musetalk.musetalk, musetalk.detector, musetalk.parser, compat=True)
    print(f"\n{'fps':>6} {'mouth late, ms':>15} {'last third':>11} {'upstream':>9} {'last third':>11}  sound, ms")
    for fps in RATES:
        out = np.stack(list(musetalk.speak(portrait[None], fps, samples, quiet)))
        path = folder / "speech.mp4"
        muxer.write_mp4(out, path, fps, audio=voice)
        times = ends(path)
        apart = [round(1000 * (times["a"][k] - times["v"][k]), 1) for k in (0, 1)]
        theirs = np.stack(list(upstream.speak(portrait[None], fps, samples, quiet)))
        here, there = lateness(out, samples, fps), lateness(theirs, samples, fps)
        rows.append(
            {"fps": round(fps, 2), "late_ms": here, "upstream_late_ms": there, "start_ms": apart[0], "end_ms": apart[1]}
        )
        print(f"{fps:6.2f} {here[0]:15.0f} {here[1]:11.0f} {there[0]:9.0f} {there[1]:11.0f} "
              f"   {apart[0]:+.0f} at the start, {apart[1]:+.0f} at the end, a frame is {1000 / fps:.0f}")  # fmt: skip
    return rows


def speed(musetalk: LipSync, portrait: np.ndarray, voice: Path) -> dict:
    """Seconds per frame of speech at 16 fps, best of three, and per base frame that is prepared."""
    samples = sound.decode(voice)
    clip = np.stack([np.roll(portrait, step, axis=1) for step in range(8)])
    started = time.perf_counter()
    faces = musetalk.prepare(clip, quiet)
    prepared = (time.perf_counter() - started) / len(clip)
    spent, cpu = [], []
    spoken = int((sound.speech_gate(samples, 16, sound.frame_count(len(samples), 16)) > 0).sum())
    for _ in range(3):
        started, cpu_started = time.perf_counter(), time.process_time()
        for _frame in musetalk.speak(clip, 16, samples, quiet, faces):
            pass
        spent.append((time.perf_counter() - started) / spoken)
        cpu.append((time.process_time() - cpu_started) / spoken)
    print(f"{min(spent):.3f} s for a frame that speaks ({min(cpu):.3f} CPU s), {prepared:.3f} s for a base frame")
    return {"frame_s": round(min(spent), 3), "frame_cpu_s": round(min(cpu), 3), "base_frame_s": round(prepared, 3)}


def resident() -> float:
    """Peak memory of this process, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def long_track(musetalk: LipSync, portrait: np.ndarray, voice: Path, minutes: float, folder: Path) -> dict:
    """The voice again and again under 81 frames of 480x480, to an MP4."""
    large = np.asarray(Image.fromarray(portrait).resize((480, 480), Image.Resampling.LANCZOS))
    before = resident()
    clip = np.stack([np.roll(large, step % 12, axis=1) for step in range(81)])
    track = folder / "long.wav"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y", "-stream_loop", "-1"]
    subprocess.run([*command, "-i", str(voice), "-t", str(60 * minutes), "-ar", "16000", str(track)], check=True)
    started = time.perf_counter()
    frames = muxer.write_mp4(musetalk.speak(clip, 16, sound.decode(track), quiet), folder / "long.mp4", 16, audio=track)
    spent, times = time.perf_counter() - started, ends(folder / "long.mp4")
    row = {
        "minutes": minutes,
        "frames": frames,
        "seconds": round(spent, 1),
        "above_model_gib": round(resident() - before, 3),
    }
    row |= {"start_ms": 1000 * (times["a"][0] - times["v"][0]), "end_ms": 1000 * (times["a"][1] - times["v"][1])}
    print(f"{minutes:g} min, 81 base frames of 480x480: {frames} frames in {spent:.0f} s; host memory at most "
          f"{row['above_model_gib']:.2f} GiB above the {before:.2f} GiB with the model loaded; sound ends "
          f"{row['end_ms']:+.0f} ms after the picture")  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.0, help="only a track of that length, for its memory")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--no-rates", action="store_true", help="only the seconds a frame")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    voice = ROOT / "assets/examples/voice.m4a"
    portrait = np.asarray(Image.open(ROOT / "assets/examples/portrait.jpg").convert("RGB"))
    dtype = choose_dtype(torch.device("cpu"))
    lipsync = LipSync.load(EMBEDDED, torch.device("cpu"), dtype.value)
    result = {"machine": machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{result['machine']}, {result['threads']} threads, {dtype.text}")
    with tempfile.TemporaryDirectory(prefix="wan-ui-speech-") as folder:
        if arguments.minutes:
            result["long"] = long_track(lipsync, portrait, voice, arguments.minutes, Path(folder))
        else:
            result["speed"] = speed(lipsync, portrait, voice)
            if not arguments.no_rates:
                result["rates"] = rates(lipsync, portrait, voice, Path(folder))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
