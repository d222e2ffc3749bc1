"""Locating files: torch-free, complete messages, atomic derivation."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from wan_ui.catalog import Scheme, load_catalog
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.files import places
from wan_ui.settings import ROOT, Settings

CATALOG = load_catalog(ROOT / "configs/catalog.toml")


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return replace(Settings(), models=tmp_path / "models", cache=tmp_path / "cache")


def place(settings: Settings, refs) -> None:
    for ref in refs:
        repo, _, file = ref.partition(":")
        path = settings.models / repo / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_page_needs_no_torch():
    code = (
        "import sys\nfrom wan_ui.catalog import load_catalog\nfrom wan_ui.settings import settings\n"
        "from wan_ui.files.places import availability\n"
        "for model in load_catalog(settings().catalog).values():\n"
        "    [availability(model, scheme, settings()) for scheme in model.schemes.values()]\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_missing_files_are_listed_with_their_places(folders):
    model = CATALOG["i2v-a14b"]
    scheme = model.scheme("fp8")
    with pytest.raises(UserError) as error:
        places.locate(model, scheme, folders)
    text = str(error.value)
    assert "8 of 8 files are missing" in text
    address = f"https://huggingface.co/{model.root}/resolve/{model.revision(model.root)}/Wan2.1_VAE.pth"
    assert f"Wan2.1_VAE.pth from {address} -> " in text
    assert f"put it at {folders.models / model.root / 'Wan2.1_VAE.pth'}" in text
    assert scheme.high.partition(":")[2] in text

    refs = places.needed_files(model, scheme, "diffusers")
    place(folders, refs[:-1])
    with pytest.raises(UserError, match="1 of 8 files are missing"):
        places.locate(model, scheme, folders)
    place(folders, refs[-1:])
    paths = places.locate(model, scheme, folders)
    assert [path.parent.name for path in paths.configs] == ["high_noise_model", "low_noise_model"]
    assert paths.tokenizer == folders.models / model.root / "google/umt5-xxl"
    assert "high_noise" in paths.experts[0].name and "low_noise" in paths.experts[1].name


def test_single_dit_with_diffusers_vae(folders):
    model = CATALOG["ti2v-5b"]
    scheme = model.scheme("")
    place(folders, places.needed_files(model, scheme, "diffusers"))
    paths = places.locate(model, scheme, folders)
    assert len(paths.experts) == len(paths.configs) == 1
    assert paths.vae == folders.models / "Wan-AI/Wan2.2-TI2V-5B-Diffusers/vae"


def hub_cache(tmp_path, repo: str, commit: str, *files: str) -> Path:
    """A snapshot as the hub's own client keeps it, which is of `commit`."""
    folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    for file in files:
        (folder / "snapshots" / commit / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / commit / file).write_text("of the hub")
    return folder / "snapshots" / commit


def test_hub_cache_is_the_second_place(folders, tmp_path):
    model = CATALOG["i2v-a14b"]
    refs = [places.split(ref) for ref in places.needed_files(model, model.scheme(""), "diffusers")]
    for repo, file in refs:
        hub_cache(tmp_path, repo, model.revision(repo), file)
    here = hub_cache(tmp_path, model.root, model.revision(model.root))
    assert places.locate(model, model.scheme(""), folders).t5 == here / places.T5_FILE
    place(folders, [f"{model.root}:{places.T5_FILE}"])
    assert places.locate(model, model.scheme(""), folders).t5 == folders.models / model.root / places.T5_FILE


def test_availability(folders, monkeypatch):
    model = CATALOG["i2v-a14b"]
    monkeypatch.setattr(places, "nvidia_gpu", lambda: False)
    assert places.availability(model, model.scheme(""), folders) == "needs a CUDA GPU"
    monkeypatch.setattr(places, "nvidia_gpu", lambda: True)
    # 2 x 15 GB are known roughly, text encoder and VAE to the byte
    assert places.availability(model, model.scheme(""), folders) == "8 of 8 files missing, about 41.9 GB to download"
    refs = places.needed_files(model, model.scheme(""), "diffusers")
    place(folders, [ref for ref in refs if "VAE" not in ref])
    assert places.availability(model, model.scheme(""), folders) == "1 of 8 files missing, 0.5 GB to download"
    place(folders, refs)
    assert places.availability(model, model.scheme(""), folders) == ""


def test_memory_follows_from_the_sizes():
    model = CATALOG["i2v-a14b"]
    scheme = model.scheme("gguf-Q4_K_M")
    refs = [ref for ref in places.needed_files(model, scheme, "lightx2v") if not ref.endswith(".json")]
    files = [model.known(*places.split(ref)).shown for ref in refs]
    expert = max(model.known(*places.split(ref)).shown for ref in (scheme.high, scheme.low))
    for size in ((), (1280, 720)):
        work = places.work(*(size or (480, 480)))
        everything, one_expert = places.gpu_memory_wanted(model, scheme, "lightx2v", *([size] if size else []))
        assert everything == pytest.approx((sum(files) + work) / 2**30, rel=1e-4)
        assert one_expert == pytest.approx((expert + work) / 2**30)
    # what the work was measured to take on an H100 in fp8 with no more to be had, the context included
    measured = {(480, 480): 4.2, (832, 480): 6.4, (1280, 720): 12.3}
    assert all(0 < places.work(*size) / 2**30 - gib < 1 for size, gib in measured.items())


def test_the_cache_is_asked_for_the_pinned_revision_first(folders, tmp_path):
    model, vae, commit = CATALOG["i2v-a14b"], "Wan2.1_VAE.pth", "a" * 40

    def found() -> Path | None:
        return places.files(model, model.scheme("fp8"), folders, "lightx2v")[f"{model.root}:{vae}"]

    assert found() is None
    newest = hub_cache(tmp_path, model.root, commit, vae)
    assert found() is None, "of a commit that nobody asked for"
    (newest.parent.parent / "refs").mkdir()
    (newest.parent.parent / "refs" / "main").write_text(commit)
    assert found() == newest / vae
    pinned = hub_cache(tmp_path, model.root, model.revision(model.root), vae)
    assert found() == pinned / vae


def embedded(tmp_path, content=b"GGUF"):
    root = tmp_path / "model"
    for name in [
        *(expert.config for expert in FAMILIES["a14b"].experts),
        places.T5_FILE,
        FAMILIES["a14b"].vae.file,
        *places.TOKENIZER_FILES,
    ]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for folder in ("HighNoise", "LowNoise"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / f"tiny-{folder}-Q8_0.gguf").write_bytes(content + folder.encode())
    return replace(CATALOG["wan-tiny"], root=f"embedded:{root}")


def test_embedded_model_derives_once_per_content(folders, tmp_path, monkeypatch):
    made = []

    def quantise(source, target, kind, *, name):
        made.append((source.name, kind, name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()

    monkeypatch.setattr(places, "quantise_file", quantise)
    model = embedded(tmp_path)
    assert places.availability(model, model.scheme("fp8"), folders) == "" and not made

    shipped = places.locate(model, model.scheme("gguf-Q8_0"), folders)
    assert [path.name for path in shipped.experts] == ["tiny-HighNoise-Q8_0.gguf", "tiny-LowNoise-Q8_0.gguf"]
    assert not made

    first = places.locate(model, model.scheme("gguf-Q5_0"), folders)
    assert first == places.locate(model, model.scheme("gguf-Q5_0"), folders)
    assert made == [
        ("tiny-HighNoise-Q8_0.gguf", "Q5_0", "wan-tiny high_noise"),
        ("tiny-LowNoise-Q8_0.gguf", "Q5_0", "wan-tiny low_noise"),
    ]
    assert first.experts[0].parent == first.experts[1].parent

    changed = places.locate(embedded(tmp_path, b"GGUF2"), model.scheme("gguf-Q5_0"), folders)
    assert changed.experts[0].parent != first.experts[0].parent and len(made) == 4


def test_embedded_model_without_its_files(folders, tmp_path):
    model = replace(CATALOG["wan-tiny"], root=f"embedded:{tmp_path / 'nowhere'}")
    assert places.availability(model, model.scheme(""), folders) == "8 of 8 files missing"
    with pytest.raises(UserError, match="ships with Wan UI"):
        places.locate(model, model.scheme(""), folders)


def test_two_at_once_derive_whole_files(folders, tmp_path):
    """Eight threads ask for the same derived file; each gets a whole one, and nothing else is left."""
    pytest.importorskip("torch")
    from tests import dit_files

    model = embedded(tmp_path)
    for folder in ("HighNoise", "LowNoise"):
        path = tmp_path / "model" / folder / f"tiny-{folder}-Q8_0.gguf"
        dit_files.save_gguf(path, dit_files.weights())
    scheme = Scheme("fp8", "fp8", "fp8")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: places.locate(model, scheme, folders), range(8)))
    assert len({result.experts for result in results}) == 1
    assert sorted(p.name for p in results[0].experts[0].parent.iterdir()) == [
        "wan-tiny-high_noise-fp8.safetensors",
        "wan-tiny-low_noise-fp8.safetensors",
    ]


def test_unwritable_cache_says_which_setting(folders, tmp_path, monkeypatch):
    model = embedded(tmp_path)

    def refuse(source, target, kind, *, name):
        raise UserError(f"{target}: cannot be written: Read-only file system") from OSError()

    monkeypatch.setattr(places, "quantise_file", refuse)
    with pytest.raises(UserError, match=r"cannot be written.*WAN_UI_CACHE"):
        places.locate(model, model.scheme("bf16"), folders)
