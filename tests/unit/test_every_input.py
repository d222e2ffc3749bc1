"""Every input of every task has its place on the page, in the API and on the command line."""

import argparse
import inspect

import pytest

from wan_ui.commands import generate, options
from wan_ui.settings import Settings
from wan_ui.tasks import FORM
from wan_ui.ui import api_values, form, page

FILES = [entry for entry in FORM if entry.file]
COMPONENTS = {"picture": "image", "audio": "audio", "video": "video", "text": "textbox"}


@pytest.fixture(scope="module")
def built():
    """The page, and its events by their handlers: what each is sent, and what it answers by name."""
    events, connect = {}, page.connect

    def noted(listen, handler, inputs, parts, **options):
        dependency = connect(listen, handler, inputs, parts, **options)
        events.setdefault(handler.__name__, (inputs, parts, dependency))
        return dependency

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "connect", noted)
        blocks = page.build_ui(Settings())
    return blocks, events


def test_the_api_takes_all_of_them():
    """Its page is built from these names: without one nothing starts."""
    assert [entry.name for entry in FORM if entry.name not in api_values.PARAMETERS] == []
    empty = {entry.name: api_values.PARAMETERS[entry.name] for entry in FORM}
    assert {name for name, value in empty.items() if value is inspect.Parameter.empty} == set()
    assert all(empty[entry.name] is None for entry in FILES), "what is left out is no file"


def test_the_command_line_takes_all_of_them():
    parser = argparse.ArgumentParser()
    generate.add(parser.add_subparsers())
    words = ["generate", "--out", "clip.mp4"]
    for entry in FORM:
        words += [entry.option or f"--{entry.name.replace('_', '-')}", f"given as {entry.name}"]
    draft = options.draft(parser.parse_args(words))
    assert draft.inputs == {entry.name: f"given as {entry.name}" for entry in FORM}


def test_the_page_has_a_field_for_each_and_sends_it(built):
    blocks, events = built
    shown = {block.elem_id: block.get_block_name() for block in blocks.blocks.values() if block.elem_id}
    assert {entry.part: shown.get(entry.part) for entry in FORM} == {
        entry.part: COMPONENTS[entry.kind] for entry in FORM
    }
    for handler in ("submit", "prepare", "remember"):
        sent = [component.elem_id for component in events[handler][0]]
        assert [entry.part for entry in FORM if entry.part not in sent] == [], handler
    assert set(form.PARTS) <= set(form.FIELDS)


def test_the_page_remembers_each_and_fills_it_in_again(built):
    blocks, events = built
    ids = {block.elem_id: number for number, block in blocks.blocks.items()}
    function = next(one for one in blocks.fns.values() if one.fn and one.fn.__name__ == "remember")
    heard = {number for number, _ in blocks.fns[function.trigger_after].targets}  # see answers.connect
    assert [entry.part for entry in FORM if ids[entry.part] not in heard] == []
    for handler in ("arrive", "run_example", "restore", "restore_from_video", "extend"):
        parts = events[handler][1]
        assert [entry.part for entry in FORM if entry.part not in parts] == [], handler


def test_a_refused_file_is_said_beside_it(built):
    parts = built[1]["submit"][1]
    assert [entry.part for entry in FILES if f"{entry.part}_note" not in parts] == []
