"""The shipped catalog is sound, and a broken one is refused by file and entry."""

import tomllib

import pytest

from wan_ui.catalog import find_model, load_catalog, parse_size
from wan_ui.errors import UserError
from wan_ui.files import places
from wan_ui.settings import Settings


@pytest.fixture
def catalog():
    return load_catalog(Settings().catalog)


def test_the_models_and_schemes_that_are_promised(catalog):
    assert list(catalog) == [
        "wan-tiny",
        "i2v-a14b",
        "t2v-a14b",
        "ti2v-5b",
        "ti2v-5b-full",
        "fastwan-5b",
        "s2v-14b",
        "wan21-t2v-1b",
        "animate-14b",
    ]
    assert list(catalog["wan-tiny"].schemes) == ["bf16", "fp8", "gguf-Q8_0", "gguf-Q5_0", "gguf-Q4_0"]
    assert catalog["wan-tiny"].embedded and not catalog["i2v-a14b"].embedded
    for model in catalog.values():
        for scheme in model.schemes.values():
            assert model.embedded or (":" in scheme.high and bool(scheme.low) != model.family.single)


def test_every_download_is_known(catalog):
    """Each file of a full-size scheme lies in a repository of the catalog; all but config files have a size."""
    for model in catalog.values():
        for scheme in model.schemes.values():
            for ref in () if model.embedded else places.needed_files(model, scheme, "lightx2v"):
                repo, file = places.split(ref)
                assert repo in model.repositories, ref
                assert file.endswith(".json") or model.known(repo, file).shown > 1e8, ref
    assert catalog["i2v-a14b"].revision("lightx2v/Encoders") == "main", "no commit is known"
    followed = [name for name, repository in catalog["i2v-a14b"].repositories.items() if not repository.revision]
    speech = ("Wan-AI/Wan2.2-S2V-14B", "QuantStack/Wan2.2-S2V-14B-GGUF")
    neither = ("QuantStack/Wan2.2-T2V-A14B-GGUF", "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers")
    neither += ("Wan-AI/Wan2.2-Animate-14B", "Kijai/WanVideo_comfy_fp8_scaled", "QuantStack/Wan2.2-Animate-14B-GGUF")
    for name in (*neither, "Wan-AI/Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", *speech):
        followed.remove(name)  # of which the catalog says that neither is known
    for name in followed:  # what cannot be pinned by its commit is by its checksum
        assert all(file.sha256 for file in catalog["i2v-a14b"].repositories[name].files.values()), name
    assert len(catalog["i2v-a14b"].revision("Wan-AI/Wan2.2-I2V-A14B")) == 40


def test_base_model_files_carry_the_distill_pair(catalog):
    for model in catalog.values():
        for scheme in model.schemes.values():
            pair = bool(scheme.lora_high and scheme.lora_low)
            assert scheme.distilled or pair or model.motions(scheme) == ("full",)
            assert scheme.distilled is not any(
                base in scheme.high for base in ("QuantStack", "Comfy-Org", "Wan-AI", "Animate")
            )
            assert model.motions(scheme) == (("fast", "more", "full") if pair else model.motions(scheme)[:1])


def test_each_way_of_sampling_has_the_official_defaults(catalog):
    """wan/configs/wan_i2v_A14B.py and wan_ti2v_5B.py; guidance there is low noise first."""
    assert set(catalog["wan-tiny"].recipes) == {"fast"} and not catalog["wan-tiny"].recipes["fast"].guided
    full = catalog["i2v-a14b"].recipes["full"]
    assert (full.default_steps, full.steps[1], full.shift, full.guidance) == (40, 50, 5.0, (3.5, 3.5))
    assert full.solver == "unipc" and not full.fixed and catalog["i2v-a14b"].boundary == 0.9
    words = catalog["t2v-a14b"].recipes["full"]  # wan_t2v_A14B.py
    assert (words.default_steps, words.shift, words.guidance, words.solver) == (40, 12.0, (4.0, 3.0), "unipc")
    assert catalog["t2v-a14b"].boundary == 0.875
    trained = catalog["ti2v-5b-full"]
    recipe = trained.recipe(trained.scheme(""))
    assert (recipe.default_steps, recipe.shift, recipe.guidance, recipe.solver) == (50, 5.0, (5.0,), "unipc")
    assert (trained.fps, trained.default_frames) == (24, 121) and set(trained.sizes) == {(1280, 704), (704, 1280)}


@pytest.mark.parametrize(
    "picture, size",
    [((4000, 3000), (256, 256)), ((1920, 1080), (320, 192)), ((1080, 1920), (192, 320)), ((9, 9), (256, 256))],
)
def test_auto_takes_the_size_nearest_in_shape(catalog, picture, size):
    assert catalog["wan-tiny"].closest_size(*picture) == size


def test_unknown_names_list_the_known_ones(catalog):
    with pytest.raises(UserError, match="choose one of wan-tiny, i2v-a14b, t2v-a14b, ti2v-5b"):
        find_model(catalog, "wan-huge")
    with pytest.raises(UserError, match="is not available for ti2v-5b"):
        catalog["ti2v-5b"].scheme("fp8")
    assert catalog["ti2v-5b"].scheme("").name == "gguf-Q8_0"


def test_sizes_are_parsed():
    assert parse_size("832x480") == parse_size(" 832×480 ") == (832, 480)
    with pytest.raises(UserError, match="WIDTHxHEIGHT"):
        parse_size("832")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("frames = [17, 25, 33]", "frames = [17, 24]", r"\[wan-tiny\]: wan-tiny: frames must be 4k\+1"),
        ('"256x256", ', '"250x250", ', "wan-tiny: sizes"),
        ("shift = 5.0", "shfit = 5.0", "shfit"),
        ("frames = [17, 25, 33]", "frames = [-3, 33]", r"wan-tiny: frames must be 4k\+1"),
        ('"256x256", ', '"0x256", ', "wan-tiny: sizes"),
        ("boundary = 0.9", "boundary = 0.9\nfps = 17", "wan-tiny: rates are whole numbers"),
        ("boundary = 0.9", "boundary = 0.0", "wan-tiny: boundary is between 0 and 1: both experts take steps"),
        ("boundary = 0.9", "boundary = 900", "wan-tiny: boundary is between 0 and 1"),
        ("boundary = 0.0", "boundary = 0.9", "ti2v-5b: boundary is 0: there is no second expert"),
        ("steps = [1, 8]", "steps = [8]", r"fast: steps are \[fewest, most\]"),
        ("steps = [1, 8]", "steps = [0, 8]", "fast: default_steps"),
        ("steps = [3, 3]", "steps = [3, 4]", "full: dmd takes at most 3 steps|fast: dmd takes at most 3 steps"),
        ("shift = 5.0", "shift = 0.0", "shift is from 1 to 20"),
        ('qtype = "Q8_0"', "", "wan-tiny: gguf-Q8_0 names no qtype"),
        ('tasks = ["image-to-video", "continue"]', 'tasks = ["animate"]', "family a14b cannot do animate"),
        ('tasks = ["image-to-video", "continue"]', 'tasks = ["speech-to-video"]', "a14b cannot do speech-to-video"),
        ('tasks = ["animate"]', 'tasks = ["image-to-video"]', "family animate-14b cannot do image-to-video"),
        ("rates = [16]", "rates = [16, 24]", r"s2v-14b: rates is \[16\]: a voice"),
        ("frames = [77] ", "frames = [1] #", "animate-14b: defaults"),
        (
            'family = "a14b"',
            'family = "14b"',
            r"\[wan-tiny\]: family '14b' is not known; choose .* t2v-a14b, s2v-14b, animate-14b, wan2.1-t2v, 5b",
        ),
        ('family = "a14b"', "", r"\[wan-tiny\]: family '' is not known"),
        ("[wan-tiny]", "[wan-tiny", "catalog"),
        ("[i2v-a14b.full]", "[i2v-a14b.other]", "unknown key 'other'"),
        ("guidance = [3.5, 3.5]", "guidance = [3.5]", "full: guidance is a list of 2, one for each expert"),
        ('solver = "unipc"', 'solver = "unpic"', "full: solver is one of unipc"),
        ('lora_low = "', 'lora_later = "', "lora_later"),
        ('lora_low = "lightx2v/', '# "lightx2v/', "fp8-base names one distill LoRA of a pair"),
        (
            'revision = "206a',
            'revision = "206',
            r"\[repositories.Wan-AI/Wan2.2-I2V-A14B\]: .*revision must be a commit",
        ),
        ("{ size = 507609880", "{ bytes = 507609880", r"\[repositories.Wan-AI/Wan2.2-I2V-A14B\]: .*bytes"),
    ],
)
def test_a_broken_catalog_is_refused_by_entry(tmp_path, old, new, words):
    path = tmp_path / "catalog.toml"
    path.write_text(Settings().catalog.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=words):
        load_catalog(path)


def test_the_newest_version_has_the_plain_name(catalog):
    schemes = catalog["i2v-a14b"].schemes
    assert "720p_260412" in schemes["bf16"].high and "720p_260412" in schemes["bf16"].low
    assert "_1030" in schemes["fp8"].high and "_1030" in schemes["bf16-1030"].high
    assert all("_1030" not in schemes[name].high for name in ("bf16-first", "fp8-first"))
    for kind in ("Q4_K_M", "Q5_K_M", "Q6_K"):
        newest = schemes[f"gguf-{kind}-260412"]
        assert newest.distilled and newest.qtype == kind and "260412" in newest.high and "260412" in newest.low


def test_float32_files_take_half_of_their_bytes(catalog):
    model = catalog["i2v-a14b"]
    newest, older = (
        places.gpu_memory_wanted(model, model.scheme(name), "lightx2v")[0] for name in ("bf16", "bf16-1030")
    )
    assert newest == pytest.approx(older, abs=0.1)


def test_frames_per_second_are_those_that_the_model_was_made_for(catalog):
    rates = {"wan-tiny": 16, "i2v-a14b": 16, "t2v-a14b": 16, "ti2v-5b": 24, "ti2v-5b-full": 24}
    rates |= {"fastwan-5b": 24, "s2v-14b": 16, "wan21-t2v-1b": 16, "animate-14b": 30}
    assert {name: model.fps for name, model in catalog.items()} == rates
    # A voice that drives a clip leaves no choice.
    assert all(model.fps in model.rates and (len(model.rates) > 1 or model.family.speech) for model in catalog.values())


@pytest.fixture(scope="module")
def entries():
    return tomllib.loads(Settings().catalog.read_text())


@pytest.fixture
def changed(entries, monkeypatch):
    """A catalog of one entry, with these values in it."""

    def load(name, **values):
        monkeypatch.setattr(tomllib, "loads", lambda text: {name: entries[name] | values})
        return load_catalog.__wrapped__(Settings().catalog)[name]

    return load


@pytest.mark.parametrize("name, fewest", [("animate-14b", 5), ("s2v-14b", 5)])
def test_segments_are_long_enough_for_what_they_share(changed, name, fewest):
    with pytest.raises(UserError, match=f"{name}: default_frames is the length of a segment"):
        changed(name, frames=[1], default_frames=1)
    model = changed(name, frames=[fewest], default_frames=fewest)
    assert model.overlaps == ((1,) if name == "animate-14b" else ())  # five of five would leave nothing new
    assert changed("animate-14b", frames=[13], default_frames=13).overlaps == (1, 5)


@pytest.mark.parametrize("name", ["wan-tiny", "i2v-a14b", "s2v-14b", "animate-14b", "fastwan-5b"])
def test_whatever_stands_in_an_entry_it_is_refused_by_name_or_taken(changed, entries, name):
    structure = ("sizes", "frames", "steps", "rates", "family", "schemes", "tasks", "guidance", "solver")
    structure += ("title", "root", "needs_gpu", "default_scheme")
    texts = ("title", "root", "default_scheme", "hint", "vae", "t5")
    for key in [*entries[name], "rates", "fps"]:
        for value in (-1, 0, 1.5, float("nan"), True, "x", [], ["x"], [None], {}, {"x": 1}, {"x": {}}):
            try:
                model = changed(name, **{key: value})
            except UserError as error:
                assert f"[{name}]: " in str(error)
                continue
            assert key not in structure or (key in texts and value == "x") or value is True, (key, value)
            assert model.closest_size(100, 100) and model.recipe(model.scheme("")).default_steps
