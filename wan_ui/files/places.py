"""From a catalog entry to files on this machine: where they are, what is missing, what to derive.

The layout is the official one of Wan2.2-I2V-A14B with original tensor names, so that both engines read
the same files. Downloaded repositories are looked for in `<models>/<owner>/<repo>/<file>` first, then
in the huggingface_hub cache. The embedded model ships Q8_0 experts only (10 MB each); bf16, fp8, Q5_0
and Q4_0 are derived from them at first use into `<cache>/<model>-<content hash>/`: under a temporary
name, then renamed, so that a file is whole or absent, also when two processes derive it at once.

The page calls this: torch is imported only while something is being derived.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.families import Expert
from wan_ui.files import found, wav2vec
from wan_ui.files.parts import all_parts, weights_size
from wan_ui.files.quantise import quantise_file, suffix
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.machine.hardware import driver_fault, nvidia_gpu
from wan_ui.place import COMMAND, DATA, INSTALLED
from wan_ui.settings import Settings

T5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER = "google/umt5-xxl"
TOKENIZER_FILES = (f"{TOKENIZER}/tokenizer.json", f"{TOKENIZER}/tokenizer_config.json")
# Bytes that the work itself takes beside the weights, as measured on an H100 with 81 frames of either model: the
# transformer's activations and the VAE's feature maps grow with the picture (2.3 to 2.5 GiB at 480x480, 4.0 to 4.5 at
# 832x480, 9.1 to 9.9 at 1280x720); the rest is the CUDA context and memory in pieces that are too small. With no more
# to be had than this gives, clips of A14B in fp8 took 4.2, 6.4 and 12.3 GiB beside the files.
WORK_PER_PIXEL, WORK_BESIDE = 11 * 2**30 / 1e6, 2.25 * 2**30


@dataclass(frozen=True)
class Paths:
    """All files of one model with one scheme. `experts` and `configs` are (high, low), or one for a single DIT.

    tokenizer  folder with tokenizer.json
    vae        original `.pth`, or a Diffusers folder
    loras      distillation LoRAs (high, low), for files that hold the base model
    voice      weights of the wav2vec2 that hears the voice, where one drives the clip
    draft_decoder  a small decoder, where one is here: for drafts
    clip       CLIP that looks at the picture, of a family that a performance drives
    """

    experts: tuple[Path, ...]
    configs: tuple[Path, ...]
    t5: Path
    tokenizer: Path
    vae: Path
    loras: tuple[Path, ...] = ()
    draft_decoder: Path | None = None
    clip: Path | None = None
    voice: Path | None = None


def lacks_gpu(model: Model) -> bool:
    """Whether no download would help."""
    return model.needs_gpu and not nvidia_gpu()


Known = dict[tuple[str, str], Path | None]  # (name of a model, ref) -> where it was found


def availability(
    model: Model, scheme: Scheme, settings: Settings, engine: str = "auto", known: Known | None = None
) -> str:
    """ "" when the model can be used with the scheme, else the reason in a few words. Cheap; derives nothing."""
    if lacks_gpu(model):
        return "needs a CUDA GPU"
    if model.needs_gpu and driver_fault():
        return f"the GPU's driver does not answer: {driver_fault()}"
    able = model.family.engines
    if engine not in ("auto", *able):
        return f"{engine} does not run it; {able[0]} does"
    here = files(model, scheme, settings, choose_engine(engine, settings, family=model.family).name, known=known)
    missing = [ref for ref, path in here.items() if path is None]
    if not missing:
        return ""
    words = f"{len(missing)} of {len(here)} files missing"
    return words if model.embedded else f"{words}, {gigabytes(model, missing)} to download"


def gigabytes(model: Model, refs: list[str]) -> str:
    """ "28.1 GB": the size of the files together, "about" where one is not known to the byte."""
    known = [model.known(*split(ref)) for ref in refs if not ref.endswith(".json")]
    total = sum(file.shown for file in known)
    return ("" if all(file.size for file in known) else "about ") + f"{total / 1e9:.1f} GB"


def work(width: int, height: int) -> float:
    """Bytes of GPU memory that making a clip of that size takes beside the weights."""
    return WORK_BESIDE + WORK_PER_PIXEL * width * height


def least_work(width: int, height: int) -> float:
    """As `work` where every GiB counts: without memory in pieces, which torch gives back when it is asked for more, nor
    the CUDA context, which is no part of what a card has free."""
    return WORK_PER_PIXEL * width * height


def gpu_memory_wanted(model: Model, scheme: Scheme, engine: str, size: tuple[int, int] = (0, 0)) -> tuple[float, float]:
    """GPU memory in GiB that a full-size model takes: (everything resident, one expert at a time).

    The rule: the files that become weights as large as they are on disk, and `work` for a clip of `size` (default:
    the model's). It is the one by which the LightX2V engine decides what to offload.
    """

    def bytes_of(ref: str) -> int:
        if ref.startswith(found.HERE):
            return weights_size(Path(ref.removeprefix(found.HERE)))
        return sum(model.known(*split(part)).shown for part in all_parts(ref)) if ref else 0

    experts = [bytes_of(ref) // (2 if scheme.float32 else 1) for ref in scheme.experts]
    refs = [ref for ref in needed_files(model, scheme, engine) if not ref.endswith(".json")]
    everything = sum(experts) + sum(bytes_of(ref) for ref in refs if ref not in scheme.experts)
    beside = work(*(size if size[0] else model.sizes[0]))
    return (everything + beside) / 2**30, (max(experts, default=0) + beside) / 2**30


def split(ref: str) -> tuple[str, str]:
    """ "owner/repo:path" -> (owner/repo, path); of a file that was found here ("file", its path)."""
    repo, _, file = ref.removeprefix("embedded:").partition(":")
    return repo, file


def locate(model: Model, scheme: Scheme, settings: Settings, engine: str = "diffusers") -> Paths:
    """The files, derived first where needed. Raises UserError that lists each missing file and its place."""
    places = files(model, scheme, settings, engine)
    missing = [ref for ref, path in places.items() if path is None]
    if missing:
        lines = [f"  {_describe(model, ref, settings)}" for ref in missing]
        heading = f"{model.name}: {len(missing)} of {len(places)} files are missing:"
        hint = [] if model.embedded else [f"`{COMMAND} download {model.name} {scheme.name}` fetches them."]
        raise UserError("\n".join([heading, *lines, *hint]))

    here = {ref: path for ref, path in places.items() if path is not None}

    def path(file: str) -> Path:
        return here[_ref(model, file)]

    if model.vae and engine == "diffusers":
        vae = here[f"{model.vae}/config.json"]
        vae = vae.parent if vae.name == "config.json" else vae
    else:
        vae = path(model.family.vae.file)
    if model.embedded:
        shipped = {expert: path(expert.shipped) for expert in model.family.experts}
        experts = tuple(_derived(model, scheme, expert, shipped, settings) for expert in shipped)
    else:
        experts = tuple(here[ref] for ref in scheme.experts)
    return Paths(
        experts=experts,
        configs=tuple(path(expert.config) for expert in model.family.experts),
        t5=here[_t5(model, engine)],
        tokenizer=path(TOKENIZER_FILES[0]).parent,
        vae=vae,
        loras=tuple(here[ref] for ref in scheme.distill_loras),
        clip=path(model.family.performance.clip) if model.family.performance else None,
        voice=path(f"{model.family.speech.encoder}/{wav2vec.WEIGHTS}") if model.family.speech else None,
        draft_decoder=next(filter(None, (_find(model, ref, settings) for ref in model.draft_decoders)), None),
    )


def _ref(model: Model, file: str) -> str:
    """A file is named "owner/repo:path" or "embedded:folder:path"."""
    return f"{model.root}:{file}"


def _t5(model: Model, engine: str) -> str:
    return model.t5 if model.t5 and engine == "lightx2v" else _ref(model, T5_FILE)


def files(
    model: Model, scheme: Scheme, settings: Settings, engine: str, draft: bool = False, known: Known | None = None
) -> dict[str, Path | None]:
    """Every file that `engine` reads, "owner/repo:path" -> where it is, None if it is missing.

    draft  the quickest small decoder, too
    known  what was found a moment ago and is not looked for again; what is found is put into it
    """
    refs = [*needed_files(model, scheme, engine), *(model.draft_decoders[:1] if draft else ())]
    known = {} if known is None else known
    for ref in refs:
        if (model.name, ref) not in known:
            known[model.name, ref] = _find(model, ref, settings)
    return {ref: known[model.name, ref] for ref in refs}


def needed_files(model: Model, scheme: Scheme, engine: str) -> list[str]:
    """All that `engine` reads for this model and scheme; of an embedded model, what is derived from."""
    refs = [_ref(model, file) for file in (*(expert.config for expert in model.family.experts), *TOKENIZER_FILES)]
    refs.append(_t5(model, engine))
    if model.vae and engine == "diffusers":
        refs += [f"{model.vae}/config.json", f"{model.vae}/diffusion_pytorch_model.safetensors"]
    else:
        refs.append(_ref(model, model.family.vae.file))
    if model.family.performance:
        refs.append(_ref(model, model.family.performance.clip))
    if model.family.speech:
        refs += [_ref(model, f"{model.family.speech.encoder}/{file}") for file in wav2vec.FILES]
    if model.embedded:
        refs += [_ref(model, expert.shipped) for expert in model.family.experts]
    return [*refs, *(part for ref in scheme.experts for part in all_parts(ref)), *scheme.distill_loras]


def _find(model: Model, ref: str, settings: Settings) -> Path | None:
    repo, file = split(ref)
    if ref.startswith("embedded:"):
        return next(iter(sorted((DATA / repo).glob(file))), None)
    if ref.startswith(found.HERE):
        return Path(file) if Path(file).is_file() else None
    path = settings.models / repo / file
    if path.is_file():
        return path
    # 0.1 s, and only where the models folder lacks it
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    if not os.path.isdir(os.path.join(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))):
        return _stand_in(model, ref, settings)  # as nearly always, and it is asked for each file of each model
    # What another program fetched from `main` serves as well: the files of a repository are not rewritten.
    for revision in dict.fromkeys((model.revision(repo), "main")):
        cached = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return _stand_in(model, ref, settings)


def _stand_in(model: Model, ref: str, settings: Settings) -> Path | None:
    """A file that is here and serves in its place: another converter's, or one that follows from what is known."""
    repo, file = split(ref)
    if ref == model.t5 or file == T5_FILE:
        return found.stand_in(model, "text", settings)
    if file == model.family.vae.file or (model.vae and ref.startswith(f"{model.vae}/")):
        return found.stand_in(model, "vae", settings)
    if file in TOKENIZER_FILES:
        return found.stand_in(model, Path(file).name, settings)
    if repo == model.root and file in [expert.config for expert in model.family.experts]:
        return found.stand_in(model, file, settings)
    return None


def _describe(model: Model, ref: str, settings: Settings) -> str:
    repo, file = split(ref)
    if ref.startswith(found.HERE):
        return f"{file} (it was there before)"
    if ref.startswith("embedded:"):
        again = "install Wan UI again" if INSTALLED else f"restore it with `git checkout -- {repo}`"
        return f"{DATA / repo / file} (ships with Wan UI; {again})"
    return f"{file} from {address(model, ref, settings)} -> put it at {settings.models / repo / file}"


def address(model: Model, ref: str, settings: Settings) -> str:
    """Where the hub serves a file, at the pinned revision."""
    repo, file = split(ref)
    return f"{settings.hub}/{repo}/resolve/{model.revision(repo)}/{file}"


def _derived(model: Model, scheme: Scheme, expert: Expert, shipped: dict[Expert, Path], settings: Settings) -> Path:
    """An expert of an embedded model in the wanted scheme: the shipped file, or one derived from it."""
    kind = scheme.qtype if scheme.kind == "gguf" else scheme.kind
    if kind == "Q8_0":
        return shipped[expert]
    folder = settings.cache / f"{model.name}-{_content_hash(tuple(shipped.values()))}"
    target = folder / f"{model.name}-{expert.name}-{kind}{suffix(kind)}"
    if not target.is_file():
        try:
            quantise_file(shipped[expert], target, kind, name=f"{model.name} {expert.name}")
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise UserError(f"{error}. Set WAN_UI_CACHE to a folder that can be written.") from error
            raise
    with contextlib.suppress(OSError):
        os.utime(folder)  # in use: see quota.prune_cache
    return target


def _content_hash(files: tuple[Path, ...]) -> str:
    """First 12 hex digits of the sha256 over all files; 20 MB take 15 ms."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
