"""A short run of each fuzzer, always the same inputs, and all that was ever found: nothing but UserError comes out.

`python -m tests.fuzz NAME --minutes N` goes on for longer.
"""

import asyncio
import io
import zipfile

import pytest

from tests.fuzz import finds, session, targets
from tests.fuzz.targets import TARGETS, Target
from wan_ui.errors import UserError
from wan_ui.files.identify import identify

FOUND = sorted(path for path in finds.CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_are_taken_and_spoilt_ones_are_refused_in_words(name):
    for content in finds.seeds(name):
        assert finds.try_one(name, content) is None
    for number in range(TARGETS[name].short):
        content = finds.input_of(name, 0, number)
        assert finds.try_one(name, content) is None, (name, number, content[:200])


def test_a_thread_that_has_a_loop_of_events_can_fuzz():
    """As one has in which a browser is driven."""

    async def fuzz():
        assert [name for name in TARGETS if finds.try_one(name, finds.seeds(name)[0]) is not None] == []

    asyncio.run(fuzz())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_is_mended(path):
    assert finds.try_one(path.parent.name, path.read_bytes()) is None


def test_the_same_numbers_give_the_same_input_and_others_another():
    for name in TARGETS:
        assert finds.input_of(name, 1, 2) == finds.input_of(name, 1, 2)
        assert len({finds.input_of(name, 1, number) for number in range(20)}) > 10


@pytest.fixture
def careless(monkeypatch, tmp_path):
    """A parser with faults of each kind."""

    def run(path):
        content = path.read_bytes()
        if content == b"fault":
            raise KeyError("x")
        if content == b"silent":
            raise UserError(" ")
        while content == b"slow":
            pass
        raise UserError("no")

    monkeypatch.setitem(TARGETS, "careless", Target(lambda: [b"x"], lambda *_: b"fault", run, ".bin", 1))
    monkeypatch.setattr(finds, "PATIENCE", 0.2)
    monkeypatch.setattr(finds, "CORPUS", tmp_path)


def test_faults_are_seen(careless):
    assert isinstance(finds.try_one("careless", b"fault"), KeyError)
    assert isinstance(finds.try_one("careless", b"slow"), finds.TooSlow)
    assert isinstance(finds.try_one("careless", b"silent"), UserError), "a refusal without words"
    assert finds.try_one("careless", b"right") is None
    assert finds.keep("careless", b"fault").read_bytes() == b"fault"


def test_a_checkpoint_whose_archive_is_broken_is_named(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"decoder.conv1.weight conv2.weight")
    whole = content.getvalue()
    path = tmp_path / "x.pth"
    path.write_bytes(whole)
    assert identify(path).problem == ""
    place = whole.index(b"decoder")
    path.write_bytes(whole[:place] + b"DECODER" + whole[place + 7 :])
    assert "not a torch checkpoint that can be read (Bad CRC-32" in identify(path).problem


@pytest.mark.hardening(13)
@pytest.mark.parametrize(
    ("shapes", "name", "shape", "words"),
    [
        (targets._text_encoder, "token_embedding.weight", (8,), "no UMT5 encoder in the names of"),
        (targets._transformer, "text_embedding.0.weight", (256, 0), "do not make a whole Wan transformer"),
        (targets._transformer, "blocks.0.self_attn.q.weight", (0, 256), "do not make a whole Wan transformer"),
        (lambda: targets.VAE, "conv2.weight", (), "no Wan VAE"),
    ],
)
def test_weights_whose_tensors_have_other_dimensions_than_their_names_say(shapes, name, shape, words, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(targets._safetensors(targets._of(dict(shapes())), holes=True))
    targets._with_holes(path)
    assert identify(path).problem == ""
    path.write_bytes(targets._safetensors(targets._of({**shapes(), name: shape}), holes=True))
    targets._with_holes(path)
    problem = identify(path).problem
    assert problem.startswith(str(path)) and words in problem and "other dimensions than its name says" in problem


def test_a_checkpoint_that_is_compressed_wrongly_is_named(tmp_path):
    for how in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", how) as archive:
            archive.writestr("archive/data.pkl", b"decoder.conv1.weight conv2.weight" * 9)
        whole = bytearray(content.getvalue())
        whole[60:80] = bytes(byte ^ 0x55 for byte in whole[60:80])
        path = tmp_path / "x.pth"
        path.write_bytes(whole)
        assert "not a torch checkpoint that can be read (" in identify(path).problem


def test_the_command_names_what_it_knows(capsys):
    from tests.fuzz.__main__ import main

    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "'nothing': expected safetensors, gguf" in capsys.readouterr().err and session.SLICE > 0
