"""HTML is drawn through MarkupSafe: what a person typed cannot become a part of it, however it is put in."""

import ast
import re

import gradio as gr
import pytest

from wan_ui.settings import ROOT
from wan_ui.ui.answers import check_drawn, connect
from wan_ui.ui.markup import Markup, text, wide_table

UI = ROOT / "wan_ui" / "ui"
HOSTILE = """<img src=x onerror="alert(1)"> & 'half' \ud83d"""
ESCAPED = "&lt;img src=x onerror=&#34;alert(1)&#34;&gt; &amp; &#39;half&#39; \ufffd"
TAG = re.compile(r"<[A-Za-z/!]|<$")
ATTRIBUTE = re.compile(r"""(^|\s)[\w-]+=["']""")
# What is Markup although it stands in no literal: the scripts, which are files of ours.
OWN_FILES = {"launch.py": ("script.read_text(encoding='utf-8')",)}


@pytest.mark.parametrize(
    "put",
    [
        lambda words: Markup("{}").format(words),
        lambda words: Markup("{words}").format(words=words),
        lambda words: Markup("%s") % words,
        lambda words: Markup().join([words]),
        lambda words: Markup() + words,
        lambda words: words + Markup(),
        text,
    ],
)
def test_what_is_put_into_markup_is_escaped_and_valid_text(put):
    drawn = put(HOSTILE)
    assert type(drawn) is Markup and drawn == ESCAPED
    assert put(drawn) == drawn, "what is markup already is left alone"
    assert wide_table(HOSTILE, [HOSTILE], Markup()).count(ESCAPED) == 2


def problems(source: str, own: tuple[str, ...] = ()) -> list[str]:
    """Where HTML is written that is no literal inside Markup(…)."""
    tree = ast.parse(source)
    inside, docstrings = set(), set()
    found = []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            docstrings.add(body[0].value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Markup":
            inside |= set(node.args)
            if node.args and not isinstance(node.args[0], ast.Constant) and ast.unparse(node.args[0]) not in own:
                found.append(f"{node.lineno}: Markup of what is no literal")
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            if node not in inside and any(TAG.search(words) or ATTRIBUTE.search(words) for words in texts):
                found.append(f"{node.lineno}: an f-string with HTML")
            docstrings |= {part for part in node.values if isinstance(part, ast.Constant)}
        elif isinstance(node, ast.Constant) and node not in inside | docstrings and TAG.search(str(node.value)):
            found.append(f"{node.lineno}: HTML in a text that is not Markup")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "f'<b>{name}</b>'",
        "'<b>' + name + '</b>'",
        "'<b>%s</b>' % name",
        "'<b>{}</b>'.format(name)",
        "''.join(['<li>', name])",
        "Markup(f'<b>{name}</b>')",
        "Markup(name)",
        "Markup('<b>' + name)",
        """f' title="{name}"'""",
        "'<' + tag",
    ],
)
def test_the_test_below_finds_html_that_is_not_escaped(source):
    assert problems(source)


@pytest.mark.parametrize("source", ["Markup('<b>{}</b>').format(name)", "'''<b>a docstring</b>'''", "f'{a} < {b}'"])
def test_and_leaves_alone_what_is_right(source):
    assert problems(source) == []


def test_all_html_of_the_page_is_markup():
    files = sorted(UI.rglob("*.py"))
    assert len(files) > 60
    wrong = [
        f"{path.relative_to(ROOT)}:{words}"
        for path in files
        for words in problems(path.read_text(encoding="utf-8"), OWN_FILES.get(path.name, ()))
    ]
    assert wrong == []


def test_gradio_is_given_nothing_else():
    with gr.Blocks() as page:
        button, part, line = gr.Button(), gr.HTML(elem_id="card"), gr.Textbox()
        for answer in ("<b>plain</b>", gr.update(value="<b>plain</b>")):
            connect(button.click, lambda answer=answer: {"part": answer}, [], {"part": part})
        connect(button.click, lambda: {"part": Markup("<b>bold</b>"), "line": "<i>"}, [], {"part": part, "line": line})
    first, second, third = page.fns.values()
    for wrong in (first, second):
        with pytest.raises(TypeError, match="card is drawn with Markup, and not with '<b>plain</b>'"):
            wrong.fn()
    assert third.fn() == ["<b>bold</b>", "<i>"]
    for update in ("", gr.skip(), gr.update(visible=False)):
        check_drawn(part, update)
