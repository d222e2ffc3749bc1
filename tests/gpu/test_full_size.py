"""Full-size models with random weights: numbers, and memory as promised. Nothing is downloaded."""

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet
from wan_ui.catalog import load_catalog
from wan_ui.files import places
from wan_ui.machine import hardware, memory
from wan_ui.machine.hardware import GIB
from wan_ui.patches import embedded_sizes
from wan_ui.qa import synthetic
from wan_ui.reports.bench import peak_gib
from wan_ui.settings import settings as current

LOADING = 2  # GiB
CASES = [
    ("ti2v-5b", "gguf-Q8_0", [(1280, 704)]),
    ("ti2v-5b", "gguf-Q4_K_M", []),
    ("i2v-a14b", "fp8", [(1280, 720)]),
    ("i2v-a14b", "gguf-Q4_K_M", [(1280, 720)]),
]


@pytest.fixture
def full_size(cuda, configured, unpatched, tmp_path):
    """full_size("ti2v-5b", "gguf-Q8_0", gpu_gib=12) -> (engine, model); closed at the end. Compiled elsewhere."""
    unpatched(
        embedded_sizes.PATCH
    )  # which an earlier test with Wan-Tiny put there; it would read the text encoder twice
    engines = []

    def make(name, scheme, **changes):
        configured(models=tmp_path / "models", lightx2v_compile="off", **changes)
        model = load_catalog(current().catalog)[name]
        synthetic.write(model, model.scheme(scheme), current(), "lightx2v")
        torch.cuda.empty_cache()
        engine, _ = synthetic.create_engine("lightx2v")
        engines.append(engine)
        engine.load(model, model.scheme(scheme), quiet)
        return engine, model

    yield make
    for engine in engines:
        engine.close()


def needs(gib: float) -> None:
    torch.cuda.empty_cache()
    if hardware.measure().free < gib * GIB:
        pytest.skip(f"needs {gib:.0f} GiB of GPU memory")


def clip_of(engine, model, scheme, tmp_path, size=()):
    """The default clip in two steps: one of either expert where there are two."""
    width, height = size or model.sizes[0]
    request = make_request(tmp_path, model, scheme, width=width, height=height, frames=model.default_frames, steps=2)
    experts = []
    clip = engine.generate(request, lambda p: experts.append(p.detail) if p.stage == "denoise" else None)
    assert np.isfinite(clip.latents).all() and clip.latents.std() > 0.1
    assert clip.frames.shape == (model.default_frames, height, width, 3) and clip.frames.std() > 0
    assert len(set(experts)) == len(model.family.experts)
    return clip


@pytest.mark.parametrize(("name", "scheme", "sizes"), CASES)
def test_finite_numbers_in_the_memory_that_the_catalog_promises(full_size, tmp_path, name, scheme, sizes):
    """No more of the GPU can be had than is promised for a clip of that size, with everything resident.

    The engine knows of a limit when it loads: where there is more memory it takes more, to be faster. Reading the text
    encoder takes up to LOADING beside what a clip then needs.
    """
    model = load_catalog(current().catalog)[name]
    sizes = [model.sizes[0], *sizes]
    promises = [places.gpu_memory_wanted(model, model.scheme(scheme), "lightx2v", size)[0] for size in sizes]
    needs(max(promises))
    engine, model = full_size(name, scheme, lightx2v_offload="none", gpu_gib=max(promises) + LOADING)
    for size, promise in zip(sizes, promises, strict=True):
        memory.limit_gpu(promise)
        memory.forget_peak()
        clip = clip_of(engine, model, scheme, tmp_path, size)
        assert ("distill LoRA" in clip.facts) == bool(model.scheme(scheme).lora_high)
        print(f"{name} {scheme} {size}: {peak_gib(memory.memory_used()):.1f} GiB, promised {promise:.1f}")
        assert peak_gib(memory.memory_used()) < promise
        torch.cuda.empty_cache()


def test_a_long_process_holds_what_the_catalog_promises(full_size, tmp_path):
    """One process, sizes up and down: what a large clip took does not stay with the small one after it, and each can be
    had in what is promised for it. Where there is more, torch keeps more in pieces before it looks for them."""
    name, scheme = "i2v-a14b", "fp8"
    model = load_catalog(current().catalog)[name]
    small, wide, large = model.sizes[0], model.sizes[1], (1280, 720)
    promises = {
        size: places.gpu_memory_wanted(model, model.scheme(scheme), "lightx2v", size)[0]
        for size in (small, wide, large)
    }
    needs(promises[large] + LOADING)
    engine, model = full_size(name, scheme, lightx2v_offload="none")

    def peak(size, limit: float = 0.0) -> float:
        memory.limit_gpu(limit)
        memory.give_back(most=places.least_work(*size))  # as the worker does before each clip
        memory.forget_peak()
        clip_of(engine, model, scheme, tmp_path, size)
        peak = peak_gib(memory.memory_used())
        print(f"{size}: {peak:.1f} GiB, promised {promises[size]:.1f}{', the limit' if limit else ''}")
        return peak

    first = peak(small)
    peak(large)
    assert peak(small) < first + 0.5
    for size in (large, wide, small):
        assert peak(size, promises[size]) < promises[size]


def test_a_lora_on_every_layer_of_fp8_weights(full_size, tmp_path):
    """T2V A14B has its distillation as a pair of LoRAs: every layer is probed with the kernel that makes the clip."""
    engine, model = full_size("t2v-a14b", "fp8")
    assert "distill LoRA" in clip_of(engine, model, "fp8", tmp_path).facts


@pytest.mark.parametrize(
    ("name", "scheme", "gib", "offload"),
    [
        ("ti2v-5b", "gguf-Q8_0", 12, "text"),
        ("ti2v-5b", "gguf-Q8_0", 10, "text"),
        ("i2v-a14b", "gguf-Q4_K_M", 14, "model"),
        ("i2v-a14b", "fp8", 32, "model"),
    ],
    ids=["5b on 12 GiB", "5b on 10 GiB", "Q4_K_M on 14 GiB", "one expert at a time where both do not fit"],
)
def test_a_card_that_is_too_small_for_everything(full_size, tmp_path, name, scheme, gib, offload):
    needs(gib)
    engine, model = full_size(name, scheme, gpu_gib=gib)
    memory.forget_peak()
    assert engine.offload == offload
    for _ in range(2):  # the second finds what the first has left
        clip_of(engine, model, scheme, tmp_path)
    print(f"{name} {scheme}: {peak_gib(memory.memory_used()):.2f} GiB of {gib}")
    assert peak_gib(memory.memory_used()) < gib
