"""A name that no file system takes is answered like that of a file that is not there, wherever a file is named."""

from pathlib import Path

import pytest

from wan_ui.errors import UserError
from wan_ui.files import convert, parts
from wan_ui.files.headers import check_pth, read_header
from wan_ui.media import pose_video, sound
from wan_ui.performance import watch
from wan_ui.qa import compare
from wan_ui.queue.afterwork_intake import _look
from wan_ui.queue.segments_intake import look_before
from wan_ui.queue.speech_intake import look_at_clip, voice_trouble
from wan_ui.settings import Settings, load_settings
from wan_ui.valid_text import valid_name

LONG = "x" * 300
SETTINGS = Settings()
DOORS = {
    "sound": lambda: sound.read_voice(Path(LONG)),
    "pose": lambda: pose_video.look_at_pose(LONG),
    "clip": lambda: look_before(LONG, SETTINGS),
    "speech": lambda: look_at_clip(LONG, "video"),
    "after-work": lambda: _look(LONG, "video"),
    "performance": lambda: watch.look("performance", LONG, SETTINGS),
    "compare": lambda: compare.read_item(Path(LONG)),
    "convert": lambda: convert.plan(Path(LONG), "official"),
    "weights": lambda: parts.read_weights(Path(LONG)),
    "header": lambda: read_header(Path(LONG)),
    "pth": lambda: check_pth(Path(LONG)),
}


@pytest.mark.parametrize("door", DOORS)
def test_it_is_no_file(door):
    with pytest.raises(UserError, match=f"{LONG}.*(does not exist|file not found)"):
        DOORS[door]()


def test_what_is_only_asked_says_so_too():
    assert voice_trouble(LONG, SETTINGS) == f"audio: {LONG} does not exist"


@pytest.mark.hardening(35)
@pytest.mark.parametrize("name", ["WAN_UI_COMFYUI", "WAN_UI_LIGHTX2V_PATH"])
def test_a_setting_is_refused_by_its_name(name):
    with pytest.raises(UserError, match=f"^{name}.*expected"):
        load_settings({name: f"/{LONG}"})


def test_a_folder_of_nobody_is_none():
    with pytest.raises(UserError, match="WAN_UI_COMFYUI: '~nobody-here/x' is no folder"):
        load_settings({"WAN_UI_COMFYUI": "~nobody-here/x"})


def test_a_name_with_a_half_that_stands_for_no_byte():
    assert valid_name("a\udce9") == r"a\xe9"
    assert valid_name("a\ud800b") == "a\ufffdb"
