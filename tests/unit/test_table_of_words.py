"""Every text has its Chinese, and the table has nothing else; how a text is found in it; what the terminal says."""

import io
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.unit.texts_of_sources import HOLE, Text, all_texts, texts_of_python, texts_of_script
from wan_ui.__main__ import main
from wan_ui.settings import ROOT, load_settings, terminal_language
from wan_ui.words.terminal import Translated
from wan_ui.words.translate import TABLE, translate

NOT_READ = Path(__file__).with_name("texts_nobody_reads.txt")
ROWS = json.loads(TABLE.read_text(encoding="utf-8"))


@cache
def found() -> dict[str, str]:
    """Template -> where it stands first."""
    places: dict[str, str] = {}
    for text in all_texts():
        places.setdefault(text.template, text.place)
    return places


def not_read() -> set[str]:
    return set(NOT_READ.read_text(encoding="utf-8").splitlines())


def test_every_text_of_the_sources_is_in_the_table():
    missing = [f"{place}: {text!r}" for text, place in found().items() if text not in ROWS["texts"].keys() | not_read()]
    told = (
        "a row of wan_ui/words/zh.json, or, where nobody reads it, a line of tests/unit/texts_nobody_reads.txt, lacks:"
    )
    assert missing == [], "\n".join([told, *missing])


def test_the_table_has_nothing_that_the_sources_have_no_more():
    dead = [text for text in [*ROWS["texts"], *not_read()] if text not in found()]
    assert dead == [], "take these out of wan_ui/words/zh.json or tests/unit/texts_nobody_reads.txt"
    assert not_read().isdisjoint(ROWS["texts"])


def test_both_sides_of_a_row_have_the_same_holes():
    wrong = []
    for english, chinese in {**ROWS["texts"], **ROWS["others"]}.items():
        holes, numbers = english.count(HOLE), re.findall(r"\{(\d*)=?\}", chinese)
        in_order, numbered = numbers == [""] * holes, sorted(numbers) == [str(number) for number in range(holes)]
        if not (in_order or numbered) or not chinese.strip():
            wrong.append((english, chinese))
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('raise UserError(f"size: {size} is too large", field="size")', ["size: {} is too large"]),
        ('raise KeyError("a sentence for the log alone")', []),
        ('log.warning("a sentence for the log")', []),
        ('"""A sentence that says what is in the file."""', []),
        ('gr.Button("Generate", elem_id="some words")', ["Generate"]),
        ('parser.add_argument("--size", metavar="SOME WORDS", help="denoise")', ["denoise"]),
        (
            'Markup(\'<p class="w-note bad" title="Go on">Hello <b>{name}</b></p>\').format(name=name)',
            ["Go on", "Hello"],
        ),
        ("words = f\"{n} clip{'' if n == 1 else 's'} left\"", ["{} clip left", "{} clips left"]),
        ('words = "first half" + f" and {second}"', ["first half and {}"]),
        ('if state == "not a text": pass', []),
        ('connection.execute("SELECT every row FROM a table")', []),
    ],
)
def test_what_counts_as_a_text_in_python(source: str, texts: list[str]):
    assert [text.template for text in texts_of_python(source, "x.py")] == texts


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("said.textContent = 'This is said.'; // not this", ["This is said."]),
        ("const words = `${name} of ${count} clips`;", ["{} of {} clips"]),
        ('find("#right .w-stage video"); part.closest("[data-do]")', []),
        ("text.replace(/[\"']/g, ''); say(\"Go on\")", ["Go on"]),
        ("a = ok ? `all ${n ? `of ${n} clips` : 'none'}` : 'not one'", ["all {}", "of {} clips", "not one"]),
    ],
)
def test_what_counts_as_a_text_in_a_script(source: str, texts: list[str]):
    assert [text.template for text in texts_of_script(source, "x.js:1")] == texts


def test_a_new_text_is_named_with_its_place():
    assert texts_of_python('x = 1\nraise UserError("A new sentence.")', "a.py") == [Text("A new sentence.", "a.py:2")]


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("Generate", "生成"),
        ("  Done  ", "  完成  "),
        ("Done in 2 min 5 s", "已完成，用时 2 分 5 秒"),
        ("Denoise step 3 of 20 · about 12 s left", "去噪：第 3/20 步 · 剩余约 12 秒"),
        ("size: Wan-Tiny makes 256x256, not 300x300", "尺寸：Wan-Tiny 生成 256x256，而不是 300x300"),
        (
            "Wan-Tiny makes 256x256, not 300x300",
            "Wan-Tiny 生成 256x256，而不是 300x300",
        ),  # its field is named beside it
        ("24 Nov", "11月24日"),
        ("error: size: Wan-Tiny makes 256x256, not 300x300", "错误：尺寸：Wan-Tiny 生成 256x256，而不是 300x300"),
        ("Denoise step 1 of 4, high-noise expert", "去噪：第 1/4 步，高噪声专家"),
        ("A click makes the clip with Wan-Tiny, bf16.", "点击后用 Wan-Tiny, bf16 生成视频。"),
        ("Wan-Tiny, bf16 is loading. Reading the prompt", "Wan-Tiny，bf16 正在加载。正在读取提示词"),
        ("diffusers (auto: no CUDA GPU)", "diffusers（自动：没有 CUDA GPU）"),
        ("They need a CUDA GPU, which is not here;", "它们需要 CUDA GPU，而这里没有；"),  # before a link
        ("load 0.1 · denoise 3.4 s", "加载 0.1 · 去噪 3.4 秒"),
        ("Wan-Tiny (embedded, runs on a CPU), bf16", "Wan-Tiny（内置，可在 CPU 上运行），bf16"),
        # what people typed
        ("slowly zoom in, sunset light", "slowly zoom in, sunset light"),
        ("Clip: a cat, the picture of a dog", "视频：a cat, the picture of a dog"),
        ("a_file_of_mine.png", "a_file_of_mine.png"),
        ("Move up: a cat, the picture", "上移：a cat, the picture"),
        ("the picture of a dog in the kitchen", "the picture of a dog in the kitchen"),
        ("做一个视频", "做一个视频"),
        ("", ""),
    ],
)
def test_a_text_in_chinese(english: str, chinese: str):
    assert translate(english, "zh") == chinese
    assert translate(english, "en") == english


def test_every_row_is_found_with_values_in_it():
    """No row is hidden by another one that is looked for before it."""
    wrong = []
    for english, chinese in ROWS["texts"].items():
        numbers = [str(number) for number in range(3, 3 + english.count(HOLE))]
        text = english
        for number in numbers:
            text = text.replace(HOLE, number, 1)
        shown = translate(text, "zh")
        if not re.search("[\u4e00-\u9fff]", shown) and re.search("[\u4e00-\u9fff]", chinese):
            wrong.append((text, shown))
    assert wrong == []


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "WAN_UI_LANG": "zh"}, "zh"),
        ({"LANG": "zh_TW.UTF-8", "WAN_UI_LANG": "en"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "WAN_UI_LANG": "auto"}, "zh"),
        ({"LC_MESSAGES": "zh_CN", "LANG": "de_DE"}, "zh"),
    ],
)
def test_the_language_of_a_terminal(monkeypatch, variables: dict[str, str], language: str):
    for name in ("WAN_UI_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal_language() == language


def test_the_setting_is_checked():
    assert load_settings({"WAN_UI_LANG": "zh"}).lang == "zh"
    with pytest.raises(Exception, match="WAN_UI_LANG='fr': expected one of auto, en, zh"):
        load_settings({"WAN_UI_LANG": "fr"})


def test_help_and_errors_in_chinese(monkeypatch, capsys):
    monkeypatch.setenv("WAN_UI_LANG", "zh")
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert shown.startswith("用法：")
    assert "作为开头的图片" in shown
    assert re.search("[a-z]{3,} [a-z]{3,} [a-z]{3,}", re.sub(r"[\w-]*\[.*?\]|--\S+", "", shown)) is None, shown
    with pytest.raises(SystemExit) as stop:
        main(["generate", "--out", "clip.mp4", "--size", "large"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("错误：参数 --size：'large'：应为 宽x高，例如 256x256，或 auto（")


def test_in_english_nothing_is_other(monkeypatch, capsys):
    monkeypatch.setenv("WAN_UI_LANG", "en")
    before = sys.stdout
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    assert sys.stdout is before
    assert "the picture to start from" in capsys.readouterr().out


def test_cells_of_a_table_are_translated_one_by_one():
    told = io.StringIO()
    Translated(told).write("applies  gguf_loader   no GGUF file\n")
    assert told.getvalue() == "适用  gguf_loader   没有 GGUF 文件\n"


def test_lines_for_programs_stay():
    told = io.StringIO()
    stream = Translated(told)
    for part in (
        '{"state": "',
        'all files are there"}\n',
        "all files ",
        "are there\n",
        "WARNING x: all files are there\n",
    ):
        stream.write(part)
    stream.write("\rreading weights")
    stream.flush()
    assert told.getvalue() == (
        '{"state": "all files are there"}\n所有文件都已在本机\nWARNING x: all files are there\n\r正在读取权重'
    )


@pytest.mark.parametrize(("encoding", "words"), [("gbk", "错误："), ("utf-8", "错误："), ("latin-1", "error: ")])
def test_a_terminal_is_spoken_to_as_it_can_show(encoding: str, words: str):
    environ = {"WAN_UI_LANG": "zh", "PYTHONIOENCODING": encoding, "PATH": "/usr/bin", "HOME": str(ROOT)}
    command = [sys.executable, "-m", "wan_ui", "generate", "--seed", "x", "--out", "x.mp4"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode(encoding).startswith(words)
