"""What the command line prints, in the language of the terminal: line by line, on its way out.

Commands print English. A line of JSON, of a log or of a traceback is for programs and reports, and stays.
"""

import argparse
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from wan_ui.words.translate import translate

STAYS = re.compile(r"\s*[\[{]|(DEBUG|INFO|WARNING|ERROR|CRITICAL) |Traceback |  File |\w+(\.\w+)*Error\b")


class Translated:
    """A stream that prints the Chinese of each line; else as the one behind it."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.begun = ""  # of a line that is not at its end

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        *lines, self.begun = re.split(r"(?<=[\r\n])", self.begun + text)
        self.stream.write("".join(map(in_chinese, lines)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self.stream.write(in_chinese(self.begun))
        self.begun = ""
        self.stream.flush()


def in_chinese(line: str) -> str:
    if STAYS.match(line):
        return line
    if line.startswith("error: "):
        return "错误：" + translate(line.removeprefix("error: "), "zh")
    return "".join(translate(cell, "zh") for cell in re.split(r"( {2,})", line))  # of a table as well


def can_show(stream: TextIO) -> bool:
    """Whether its encoding has Chinese: UTF-8 and GBK have."""
    try:
        "错误：".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@contextmanager
def speaking(language: str) -> Iterator[str]:
    """Let standard output and error speak `language`, where the terminal can show it; gives the one they do."""
    if language == "en" or not (can_show(sys.stdout) and can_show(sys.stderr)):
        yield "en"
        return
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Translated(before[0]), Translated(before[1])
    try:
        yield language
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class Formatter(argparse.HelpFormatter):
    """Help whose texts are translated before they are broken into lines, a Chinese character as two columns."""

    language = "en"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help and translate(action.help, self.language)

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and translate(heading, self.language))

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, translate("usage: ", self.language) if prefix is None else prefix)

    def add_text(self, text: str | None) -> None:
        super().add_text(text and translate(text, self.language))

    def _split_lines(self, text: str, width: int) -> list[str]:
        if self.language == "en":
            return super()._split_lines(text, width)
        lines, line, used = [], "", 0
        for word in re.findall(r"[!-~]+ ?|\s+|.", " ".join(text.split())):  # Chinese may be broken anywhere
            columns = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in word)
            if used + columns > width and line and word not in "，。；：、）":
                lines.append(line.rstrip())
                line, used = "", 0
            line, used = line + word, used + columns
        return [*lines, line] if line else lines
