"""Several clips from one press: seeds, the tray, what a forged form may say."""

import pytest
from PIL import Image

from wan_ui.commands.job import names_of
from wan_ui.errors import UserError
from wan_ui.queue.draft import MAX_SEED, Draft, clips_of, next_seed
from wan_ui.ui import several


def test_seeds_follow_the_one_asked_for_and_begin_again_at_its_end():
    assert [next_seed(7, 7, place) for place in (1, 2)] == [8, 9]
    assert next_seed(MAX_SEED, MAX_SEED, 1) == 0
    drawn = {next_seed(-1, 7, 1) for _ in range(20)}
    assert len(drawn) > 10  # of 2**32


@pytest.mark.parametrize("clips", [0, 9, -1, 2.5, "4", True, None, [2]])
def test_a_forged_number_of_clips_is_refused_by_its_name(clips):
    with pytest.raises(UserError, match=r"^clips: ") as refused:
        clips_of(clips)
    assert refused.value.field == "clips"


def test_a_form_of_anything_means_one_clip():
    assert [several.read_clips(value) for value in (None, "3", True, 99, 2.5, 3, 3.0)] == [1, 1, 1, 1, 1, 3, 3]


def test_each_picture_has_its_own_words_and_size_or_those_of_the_form():
    form = Draft({"image": "above.png", "prompt": "zoom in"}, size="auto", seed=3)
    tray = [
        {"path": "a.png", "words": "", "size": ""},
        {"path": "b.png", "words": "pan left", "size": "256x256"},
    ]
    first, second = several.drafts(form, tray)
    assert first == Draft({"image": "a.png", "prompt": "zoom in"}, size="auto", seed=3)
    assert second == Draft({"image": "b.png", "prompt": "pan left"}, size="256x256", seed=3)
    assert several.drafts(form, []) == [form]
    assert several.words(2, tray) == ["2 pictures", "2 clips of each"] and several.button(2, tray) == "Generate 4 clips"


def test_the_tray_takes_twenty_pictures_and_says_what_it_does_not_take(tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    tray, wrong = several.add([], [(str(tmp_path / "a.png"), "a.png"), (str(tmp_path / "b.png"), "notes.png")])
    assert [entry["name"] for entry in tray] == ["a.png"] and wrong.startswith("notes.png: ")
    tray, wrong = several.add(tray, [(str(tmp_path / "a.png"), f"{n}.png") for n in range(25)])
    assert len(tray) == 20 and "At most 20" in wrong
    assert "thumb" not in several.to_keep(tray)[0]


def test_where_the_clips_of_a_command_go(tmp_path):
    assert names_of(tmp_path / "a.mp4", 1) == [tmp_path / "a.mp4"]
    assert names_of(tmp_path / "a.mp4", 2) == [tmp_path / "a-1.mp4", tmp_path / "a-2.mp4"]
