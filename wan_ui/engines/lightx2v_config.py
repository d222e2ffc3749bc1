"""The configuration that LightX2V is given, and the choices in it: each a value with its reason.

configs/lightx2v/default.json holds what a person decides, <model>-<scheme>.json beside it what is otherwise
for one scheme (configs/lightx2v/README.md says why); "auto" leaves a value to the machine. What follows from
the catalog (steps, shift, boundary, strides) and from the files (paths) is added here, so that it cannot
contradict them.
"""

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wan_ui import patches
from wan_ui.catalog import Model, Scheme
from wan_ui.engines import lightx2v_memory
from wan_ui.engines.kernel_choice import Chooser, left_plain
from wan_ui.engines.schedule import expert_index, sigmas
from wan_ui.errors import UserError
from wan_ui.families import TIME_STRIDE, VAE_21
from wan_ui.files.dit_file import FP8, Stored
from wan_ui.files.headers import is_gguf
from wan_ui.files.identify import is_all_in_one
from wan_ui.files.places import Paths, least_work, locate, work
from wan_ui.files.quantise import MULTIPLIED
from wan_ui.files.text_file import is_pickle, text_is_fp8
from wan_ui.machine.hardware import CONTEXT, GIB, Hardware, measure
from wan_ui.machine.shapes import shape_of
from wan_ui.patches.record import Facts
from wan_ui.place import COMMAND, DATA
from wan_ui.settings import Settings

FOLDER = DATA / "configs" / "lightx2v"
DEFAULT = FOLDER / "default.json"
KEYS = frozenset(
    {
        "attention", "offload", "fp8_kernel", "t5_fp8_kernel", "rope_type", "modulate_type", "rms_norm_type",
        "use_compile", "use_tiling_vae",
    }
)  # fmt: skip
# What upstream's GGUF class dequantises
GGML = ("Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K")
SHORT = 16_000_000  # numbers in a block's input, beyond which a step is long: the 5B model at 480x480 has 14.5 million
OFFLOADS = ("none", "text", "model", "block")


@dataclass(frozen=True)
class Choices:
    """What was decided for one load; `reasons` has one line per choice for the page and the clip's metadata."""

    values: dict
    facts: Facts
    reasons: dict[str, str]
    compile: bool = False
    own_vae: bool = True
    fused_decoder: bool = False
    fused_blocks: bool = False
    products: str = ""  # of GGUF weights, see lightx2v_memory.py
    draft_attention: tuple[bool, str] = (False, "")
    slim: bool = False
    graphs: bool = False
    dequantise: bool = False  # GGUF weights get their numbers at every use from a kernel of ours


def difference_file(model: Model, scheme: Scheme) -> Path:
    """Where a scheme says what it wants otherwise, if it does; aliases such as fp8-sgl share the file of theirs."""
    return FOLDER / f"{model.name}-{f'gguf-{scheme.qtype}' if scheme.kind == 'gguf' else scheme.kind}.json"


def check_weights(path: Path, stored: dict[str, Stored], scheme: Scheme) -> int:
    """How many layers an fp8 file keeps in a finer type, which are rounded to fp8 as well: one kernel takes them all.

    Raises UserError for a file whose numbers LightX2V's kernels cannot take, saying what can.
    """
    found = is_gguf(path)
    if found != (scheme.kind == "gguf"):
        raise UserError(
            f"{path}: it is {'a GGUF' if found else 'no GGUF'} file, and the catalog says {scheme.kind} for "
            f"{scheme.name}; correct the catalog's `kind`, or use --engine diffusers",
            field="scheme",
        )
    for name, parameter in stored.items():
        if not MULTIPLIED.match(name):
            continue
        why = ""
        if parameter.blocks and parameter.info.dtype not in GGML:
            why = f"is stored as {parameter.info.dtype}, which LightX2V cannot dequantise (it takes {', '.join(GGML)})"
        elif scheme.kind == "fp8" and parameter.scale_blocks > 1:
            why = "has a scale for every block of its input, and LightX2V's fp8 kernels take one per output channel"
        if why:
            raise UserError(f"{path}: {name} {why}; --engine diffusers takes this file", field="scheme")
    finer = [name for name in filter(MULTIPLIED.match, stored) if stored[name].info.dtype not in FP8]
    return len(finer) if scheme.kind == "fp8" else 0


def read_config(default: Path, difference: Path) -> dict[str, Any]:
    """The one with the other, where that is there, laid over it.

    Raises UserError naming the file and the key that is unknown, or missing in the default.
    """
    values = _read(default)
    missing = sorted(KEYS - set(values))
    if missing:
        raise UserError(f"{default}: key {missing[0]!r} is missing; {_known()}", field="scheme")
    return values | (_read(difference) if difference.is_file() else {})


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}", field="scheme") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a table of keys and values; {_known()}", field="scheme")
    unknown = sorted(set(values) - KEYS)
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]!r}; {_known()}", field="scheme")
    return values


def _known() -> str:
    return f"the keys are {', '.join(sorted(KEYS))}"


def wished(model: Model, scheme: Scheme, settings: Settings) -> dict[str, Any]:
    """What is decided for a model and scheme, with what the settings say instead. Raises UserError as `read_config`."""
    wishes = read_config(DEFAULT, difference_file(model, scheme))
    if settings.lightx2v_attention != "auto":
        wishes["attention"] = settings.lightx2v_attention
    if settings.lightx2v_offload != "auto":
        wishes["offload"] = settings.lightx2v_offload
    if settings.lightx2v_compile != "auto":
        wishes["use_compile"] = settings.lightx2v_compile == "on"
    return wishes


def choose(model: Model, scheme: Scheme, paths: Paths, hardware: Hardware, settings: Settings) -> Choices:
    """All choices for this model on this machine. Raises UserError where a wish cannot be met."""
    wishes = wished(model, scheme, settings)
    chooser = Chooser(settings, model, hardware)
    attention, attention_why = chooser.kernel("attention", wishes["attention"])
    cross, cross_why = attention, attention_why
    if wishes["attention"] == "auto":
        cross, cross_why = chooser.kernel("cross", "auto")
    kernel, kernel_why = chooser.product(scheme, wishes["fp8_kernel"])
    t5_kernel, t5_kernel_why = chooser.kernel("gemm", wishes["t5_fp8_kernel"], key="t5_fp8_kernel")
    offload, offload_why = _offload(wishes["offload"], model, scheme, paths, hardware)
    fused, fused_why = chooser.fused("blocks")
    if model.family.driven:
        fused, fused_why = False, f"blocks that a {model.family.driven} drives are upstream's"
    products, products_why = lightx2v_memory.products(chooser, scheme, paths, offload, fused)
    if offload == "none" and wishes["offload"] == "auto" and products not in ("bf16", "e4m3"):
        way, why = lightx2v_memory.products(chooser, scheme, paths, "text", fused)
        if way == "e4m3":  # moving the text encoder takes less time than products in bf16
            offload, offload_why = (
                "text",
                "auto: the text encoder waits in host memory, so that e4m3 fits",
            )
            products, products_why = way, why
    if fused:
        fused, fused_why = _fusable(kernel, bool(products), offload, wishes["use_compile"], fused_why)
    compiled, compiled_why = False, "the blocks run on fused kernels"
    if model.family.driven:
        compiled_why = fused_why
    elif not fused:
        compiled, compiled_why = chooser.compiling(wishes["use_compile"], offload)
    own_vae = bool(model.family.driven) or (not wishes["use_tiling_vae"] and "vae" not in left_plain(settings))
    decoder, decoder_why = chooser.fused("decoder") if own_vae else (False, "upstream's VAE")
    # The compiler fuses what torch's own operations say, and leaves complex numbers and foreign kernels alone.
    modulate, modulate_why = chooser.kernel("modulate", wishes["modulate_type"], ("torch",) if compiled else ())
    rope, rope_why = chooser.kernel("rope", wishes["rope_type"], ("torch_real_rope",) if compiled else ())
    if fused:  # they take the turns as complex numbers, and turn by themselves
        rope, rope_why = "torch_complex_rope", "in the fused kernels"
    norm, norm_why = chooser.kernel("norm", wishes["rms_norm_type"])
    dtype, dtype_why = _dtype(settings, hardware)
    other_layout = not all(map(is_pickle, (paths.t5, paths.vae)))
    facts = Facts(hardware, model.embedded, kernel, offload, dtype, other_layout, model.family.driven)
    values = {
        "self_attn_1_type": attention,
        "cross_attn_1_type": cross,
        "cross_attn_2_type": cross,
        "rope_type": rope,
        "modulate_type": modulate,
        "rms_norm_type": norm,
        "use_compile": False,  # see wan_ui/engines/lightx2v_compile.py
        "use_tiling_vae": wishes["use_tiling_vae"],
        "cpu_offload": offload in ("model", "block"),
        "offload_granularity": "model" if offload == "model" else "block",
        "t5_cpu_offload": offload != "none" and hardware.device == "cuda",
        "vae_cpu_offload": False,
        **from_catalog(model),
        **from_paths(model, scheme, paths, kernel, t5_kernel),
    }
    graphs, graphs_why = _graphs(model, settings, fused, products == "anew")
    slim = lightx2v_memory.is_slim(model, scheme, paths, hardware, offload)
    decoder_why += ", one latent frame at a time: memory is short" if slim else ""
    reasons = {
        "attention": f"{attention} ({attention_why})",
        "cross attention": f"{cross} ({cross_why})",
        "kernel": _kernel_words(kernel, kernel_why, products, products_why),
        "blocks": f"{'fused' if fused else 'as upstream has them'} ({fused_why})",
        **({"graphs": graphs_why} if graphs else {}),
        "vae": f"{'ours' if own_vae else 'upstream'}, decoder {'fused' if decoder else 'plain'} ({decoder_why})",
        "offload": f"{offload} ({offload_why})",
        "compile": f"{'on' if compiled else 'off'} ({compiled_why})",
        "modulate": f"{modulate} ({modulate_why})",
        "rope": f"{rope} ({rope_why})",
        "norm": f"{norm} ({norm_why})",
        **({"text encoder's kernel": f"{t5_kernel} ({t5_kernel_why})"} if text_is_fp8(paths.t5) else {}),
        "dtype": dtype_why,
    }
    draft = _draft_attention(chooser, compiled, offload)
    quick = lightx2v_memory.quick(scheme, hardware, settings, products) and not compiled
    return Choices(values, facts, reasons, compiled, own_vae, decoder, fused, products, draft, slim, graphs, quick)


def _kernel_words(kernel: str, why: str, products: str, products_why: str) -> str:
    if products:
        return f"{'e4m3' if products == 'e4m3' else 'bf16'} ({products_why})"
    return f"{kernel} ({'; '.join(filter(None, (why, products_why)))})"


def _graphs(model: Model, settings: Settings, fused: bool, anew: bool) -> tuple[bool, str]:
    """Whether a step of the default clip is short enough for Python to be what takes time."""
    if not fused or anew or "graphs" in left_plain(settings):
        return False, ""
    shape = shape_of(model, *model.sizes[0], model.default_frames)
    return shape.tokens * shape.width <= SHORT, "on: a short step"


def _draft_attention(chooser: Chooser, compiled: bool, offload: str) -> tuple[bool, str]:
    if compiled:
        return False, "compiled blocks keep theirs"
    if offload == "block":
        return False, "blocks take turns in one buffer"
    return chooser.draft_attention()


def _fusable(kernel: str, with_numbers: bool, offload: str, wish: str | bool, why: str) -> tuple[bool, str]:
    """Whether kernels that are right on this card serve this load's blocks."""
    if wish is True:
        return False, "compiled blocks are asked for"
    if offload not in ("none", "text"):
        return False, "weights are moved: upstream's blocks know when"
    if not with_numbers and kernel not in ("Default", "fp8-torchao"):
        return False, f"not for {kernel} weights"
    return True, why


def patch_report(model: Model, scheme: Scheme, settings: Settings) -> list[dict]:
    """Which patches this model and scheme would get here, and whether their targets stand in the checkout."""
    hardware = measure(settings.gpu_gib)
    try:
        paths = locate(model, scheme, settings, engine="lightx2v")
        facts = choose(model, scheme, paths, hardware, settings).facts
    except UserError:  # files or a kernel are missing: tell what can be told without them
        kernel = {"bf16": "Default", "fp8": "fp8-torchao"}.get(scheme.kind, f"gguf-{scheme.qtype}")
        offload = "none" if hardware.device == "cuda" else "model"
        facts = Facts(hardware, model.embedded, kernel, offload, driven=model.family.driven)
    return patches.report(facts, scheme, checkout(settings))


def checkout(settings: Settings) -> Path | None:
    """The folder that holds the package lightx2v; None where it is not installed. Imports nothing."""
    if settings.lightx2v_path:
        return Path(settings.lightx2v_path)
    spec = importlib.util.find_spec("lightx2v")
    return Path(spec.origin).parent.parent if spec is not None and spec.origin else None


def environment(settings: Settings, hardware: Hardware) -> dict[str, str]:
    """What LightX2V reads from the environment at import; `setdefault` these before that."""
    return {
        "DTYPE": _dtype(settings, hardware)[0],
        "SENSITIVE_LAYER_DTYPE": "None",
        "PROFILING_DEBUG_LEVEL": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHINDUCTOR_CACHE_DIR": str(settings.cache / "compiled"),
        "USE_CHANNELS_LAST_3D": "1" if hardware.device == "cuda" else "0",
    }


def _offload(wish: str, model: Model, scheme: Scheme, paths: Paths, hardware: Hardware) -> tuple[str, str]:
    """What makes room for the largest clip that the model is offered with, or if nothing does, for its default one."""
    if hardware.device != "cuda":
        return "model", "no GPU: upstream keeps weights in host memory only when offloading"
    if wish != "auto":
        if wish not in OFFLOADS:
            raise UserError(f"offload: {wish!r} is not known; choose auto, {', '.join(OFFLOADS)}")
        if wish == "block" and (what := _only_whole(model, scheme)):
            raise UserError(f"offload: {what} can be offloaded by whole models only; choose model or none")
        return wish, "asked for"
    weights = lightx2v_memory.on_gpu(scheme, paths)
    words = {"none": "all fits", "text": "the text encoder waits in host memory", "model": "one expert at a time"}
    largest = max(model.sizes, key=lambda size: size[0] * size[1])
    for size in (largest, model.sizes[0]):
        room = hardware.free - work(*size) + CONTEXT  # which is no part of what is free
        gib = f"{(weights['none'] + work(*size)) / GIB:.1f} GiB wanted, {hardware.free / GIB:.1f} GiB free"
        for mode, needed in weights.items():
            if needed <= room:
                return mode, f"auto: {words[mode]} at {size[0]}x{size[1]}, {gib}"
    least = least_work(*size)
    gib = f"{(weights['model'] + least) / GIB:.1f} GiB wanted, {hardware.free / GIB:.1f} GiB free"
    for mode in ("text", "model"):
        if weights[mode] + least <= hardware.free:
            return mode, f"auto: {words[mode]}, little is left at {size[0]}x{size[1]}: {gib}"
    if _only_whole(model, scheme):
        return "model", f"auto: one expert at a time, {gib}"
    return "block", f"auto: block by block, {gib}"


def _only_whole(model: Model, scheme: Scheme) -> str:
    """What cannot be offloaded block by block; "" where it can."""
    if scheme.kind == "gguf":
        return "GGUF weights"
    return f"a model that a {model.family.driven} drives" if model.family.driven else ""


def _dtype(settings: Settings, hardware: Hardware) -> tuple[str, str]:
    wish = settings.lightx2v_dtype.upper()
    if wish in ("BF16", "FP16"):
        return wish, f"{wish.lower()} (asked for)"
    if hardware.device == "cuda" and not hardware.bf16:
        return "FP16", "fp16 (auto: this GPU has no bf16)"
    return "BF16", "bf16 (auto)"


def boundary_index(steps: int, shift: float, boundary: float) -> int:
    """Number of steps that the high-noise expert takes."""
    return sum(expert_index(1000 * sigma, boundary) == 0 for sigma in sigmas(steps, shift)[:-1])


def from_catalog(model: Model) -> dict:
    """What upstream is told about the model's schedule and sizes."""
    steps, (width, height), vae = model.default_steps, model.sizes[0], model.family.vae
    values: dict[str, Any] = {
        "infer_steps": steps,
        "sample_shift": model.shift,
        "sample_guide_scale": 1.0 if model.family.single else [1.0, 1.0],
        "enable_cfg": False,
        "use_image_encoder": False,
        "target_video_length": model.default_frames,
        "target_height": height,
        "target_width": width,
        "fps": model.fps,
        "text_len": 512,
    }
    if vae != VAE_21:  # which upstream takes for granted
        values |= {"vae_stride": [TIME_STRIDE, vae.stride, vae.stride], "num_channels_latents": vae.channels}
    speech = model.family.speech
    if speech is not None:
        values |= {"target_fps": model.fps, "infer_frames": model.default_frames - 1, "motion_frames": speech.motion}
    if model.family.performance is not None:  # the face's few tokens are attended to by torch's own kernel
        values |= {"use_image_encoder": True, "adapter_attn_type": "torch_sdpa", "refert_num": 1, "replace_flag": False}
    if not model.family.single:
        # Our scheduler takes the exact sigmas; upstream's constructor wants these whole numbers all the same.
        values["denoising_step_list"] = [round(1000 * (1 - i / steps)) for i in range(steps)]
        values["boundary_step_index"] = boundary_index(steps, model.shift, model.boundary)
    return values


def from_paths(model: Model, scheme: Scheme, paths: Paths, kernel: str, t5_kernel: str) -> dict[str, Any]:
    """Where upstream finds the files, and how they are quantised."""
    for words, path in (("text encoder", paths.t5), ("VAE", paths.vae)):
        if is_all_in_one(path):
            raise UserError(
                f"{path}: the LightX2V engine cannot read the {words} inside an all-in-one file; choose the diffusers "
                f"engine, or write its parts out with `{COMMAND} convert {path.name} --to comfyui`",
                field="engine",
            )
    values: dict[str, Any] = {"vae_path": str(paths.vae), "t5_tokenizer_path": str(paths.tokenizer)}
    if text_is_fp8(paths.t5):
        values |= {"t5_quantized": True, "t5_quant_scheme": t5_kernel, "t5_quantized_ckpt": str(paths.t5)}
    else:
        values["t5_original_ckpt"] = str(paths.t5)
    kind = "original" if scheme.kind == "bf16" else "quantized"
    experts = zip(model.family.experts, paths.experts, strict=True)
    values |= {f"{expert.name}_{kind}_ckpt": str(path) for expert, path in experts}
    if scheme.kind != "bf16":
        values |= {"dit_quantized": True, "dit_quant_scheme": kernel}
    return values


def with_hardware(hardware: Hardware, device: str) -> Hardware:
    """The hardware as LightX2V uses it: on another platform than CUDA only the device's name is known."""
    return hardware if hardware.device == device else replace(hardware, device=device)
