"""What LoRAs cost: python benchmarks/loras.py [--model M] [--schemes S ...] [--rank R ...] [--size WxHxFRAMES]

Seconds of one denoise step on either expert without LoRA, with a LoRA on every linear layer of both experts,
and after its removal; seconds to apply and to remove; whether the outputs before and after are the same bits.
Full-size models are laid out with random weights (wan_ui.qa.synthetic), nothing is downloaded. A table for
people, the last line JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def write_lora(path: Path, shapes: dict[str, tuple[int, ...]], rank: int, device) -> None:
    """A LoRA on every linear layer of the blocks, bf16, with small random values."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator(device).manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        if name.startswith("blocks.") and name.endswith(".weight") and len(shape) == 2:
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            for leaf, (rows, columns) in (("down", (rank, shape[1])), ("up", (shape[0], rank))):
                values = torch.randn(rows, columns, device=device, generator=generator, dtype=torch.bfloat16)
                tensors[f"{module}.lora_{leaf}.weight"] = (0.02 * values).cpu()
    save_file(tensors, path)


def measure(model, scheme, arguments, folder: Path) -> list[dict]:
    import torch

    from wan_ui.catalog import parse_size
    from wan_ui.files.dit_file import read_parameters
    from wan_ui.files.places import locate
    from wan_ui.qa import synthetic
    from wan_ui.request import LoraSpec
    from wan_ui.settings import settings

    size, _, frames = arguments.size.rpartition("x")
    (width, height), frames = parse_size(size), int(frames)
    synthetic.write(model, scheme, settings(), arguments.engine)
    engine, _ = synthetic.create_engine(arguments.engine)
    started = time.perf_counter()
    engine.load(model, scheme, lambda progress: None)
    load = time.perf_counter() - started
    cuda = torch.cuda.is_available()
    experts = len(model.family.experts)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(model.family.vae.latents(width, height, frames), generator=generator)
    condition = torch.randn(model.family.condition_shape(width, height, frames), generator=generator)
    prompt = torch.zeros(512, {"wan-tiny": 128}.get(model.name, 4096))
    prompt[:40] = torch.randn(40, prompt.shape[1], generator=generator)
    if hasattr(engine, "set_size"):
        engine.set_size(width, height, frames)
    engine.plan(model.default_steps)

    def step() -> tuple[float, list]:
        """Median seconds of a step, mean of the experts; their outputs."""
        seconds, outputs = [], []
        for expert in range(experts):
            times = []
            for _ in range(arguments.warm + arguments.runs):
                begin = time.perf_counter()
                output = engine.predict(latents, 0.95 if expert == 0 else 0.7, expert, prompt, condition)
                if cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - begin)
            seconds.append(statistics.median(times[arguments.warm :]))
            outputs.append(output.cpu())
        return statistics.mean(seconds), outputs

    paths = locate(model, scheme, settings(), arguments.engine)
    shapes = read_parameters(paths.configs[0])
    base, before = step()
    results = []
    for rank in arguments.rank:
        path = folder / f"{model.name}-rank{rank}.safetensors"
        if not path.is_file():
            write_lora(path, shapes, rank, "cuda" if cuda else "cpu")
        begin = time.perf_counter()
        (match,) = engine.set_loras([LoraSpec(str(path), 1.0, "both")])
        apply = time.perf_counter() - begin
        changed, with_lora = step()
        begin = time.perf_counter()
        engine.set_loras([])
        remove = time.perf_counter() - begin
        again, after = step()
        results.append(
            {
                "model": model.name, "scheme": scheme.name, "size": arguments.size, "rank": rank,
                "matched": match.matched, "load": load, "step": base, "with_lora": changed, "step_again": again,
                "cost": changed / min(base, again) - 1, "apply": apply, "remove": remove,
                "changed": not any(map(torch.equal, before, with_lora)),
                "restored": all(map(torch.equal, before, after)), "facts": engine.facts,
            }
        )  # fmt: skip
    engine.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="wan-tiny")
    parser.add_argument("--schemes", nargs="*", default=["bf16"])
    parser.add_argument("--engine", default="diffusers", choices=("diffusers", "lightx2v"))
    parser.add_argument("--rank", nargs="*", type=int, default=[64])
    parser.add_argument("--size", default="256x256x17")
    parser.add_argument("--runs", type=int, default=5, help="timed steps on each expert")
    parser.add_argument("--warm", type=int, default=2, help="steps before them")
    parser.add_argument("--distill", action="store_true", help="keep the distill LoRA pair of schemes that have one")
    arguments = parser.parse_args()
    from wan_ui import settings as settings_module
    from wan_ui.catalog import find_model, load_catalog

    results = []
    with tempfile.TemporaryDirectory() as folder:
        settings_module.use(replace(settings_module.settings(), models=Path(folder) / "models"))
        model = find_model(load_catalog(settings_module.settings().catalog), arguments.model)
        head = ("scheme", "rank", "step", "with LoRA", "cost", "apply", "remove", "restored")
        print(f"{model.title}, {arguments.size}, {arguments.engine}")
        print("".join(f"{word:>12}" for word in head))
        for name in arguments.schemes:
            scheme = model.scheme(name)
            if not arguments.distill:
                scheme = replace(scheme, lora_high="", lora_low="")
            for row in measure(model, scheme, arguments, Path(folder)):
                cells = (
                    row["scheme"], row["rank"], f"{row['step']:.3f} s", f"{row['with_lora']:.3f} s",
                    f"{row['cost']:+.1%}", f"{row['apply']:.2f} s", f"{row['remove']:.3f} s",
                    "bit for bit" if row["restored"] and row["changed"] else "NO",
                )  # fmt: skip
                print("".join(f"{cell!s:>12}" for cell in cells), flush=True)
                results.append(row)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
