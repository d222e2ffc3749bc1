"""Every text of the sources that a person may read, as a template: `{}` stands where a value does.

Read from the syntax of wan_ui/*.py, the scripts beside it and in it, and the catalog. What is taken is every string
that looks like words, but for what is known to be none: docstrings, logs, errors of programmers, SQL, patterns, ids.
"""

import ast
import itertools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

from wan_ui.settings import ROOT

PACKAGE = ROOT / "wan_ui"
HOLE = "{}"
MOST = 64  # ways in which one expression may read
# Errors whose words a person reads; those of others are for the log.
ERRORS = {
    *("UserError", "WorkerDied", "NodeLost", "ArgumentTypeError", "BodyRefused", "Refused", "MultiPartException"),
    *("Full", "ValueError", "HTTPException", "SystemExit", "Unusable", "Broken"),
}
NO_TEXT = {"re", "log", "logging", "warnings", "subprocess", "ast", "importlib", "sqlite3", "Path", "struct", "torch"}
NO_TEXT_CALLS = {
    *("isinstance", "getattr", "setattr", "hasattr", "compile", "execute", "executemany", "executescript", "replace"),
    *("removeprefix", "removesuffix", "startswith", "endswith", "split", "partition", "rpartition", "strip", "encode"),
    *("open", "import_module", "find_spec", "getLogger", "fullmatch", "match", "search", "sub", "findall", "index"),
    *("count", "find", "strftime", "strptime", "info", "debug", "warning", "exception", "record", "_tell", "fetch"),
    *("setdefault", "TypeVar", "ParamSpec", "Thread", "namedtuple", "save_file", "eval", "exec"),
}
NO_TEXT_NAMES = {
    *("elem_id", "elem_classes", "js", "js_on_load", "dest", "metavar", "encoding", "errors", "mode", "dtype", "name"),
    *("media_type", "api_name", "css", "default", "pattern", "target", "code", "__all__", "daemon"),
}
WORD = re.compile(r"(?<![A-Za-z0-9_.{])[A-Za-z][a-z]+(?![A-Za-z0-9_])")  # bf16 and GGUF are none
PHRASE = re.compile(
    r"[A-Za-z]{2,}[,;:.!?”)]* [(“]*(\{\}|[A-Za-z])|\{\}[,;:.!?”)]* [(“]*[A-Za-z]{2,}"
    r"|[A-Z][a-z]+|[a-z]+: \{\}|[0-9)”] [a-z]{3,}|^[Aa] [a-z]{3,}"
)
ATTRIBUTES = ("title", "aria-label", "placeholder", "alt", "label", "aria-valuetext", "data-confirm")
SHOWN = {"help", "label", "info", "placeholder", "title", "doing", "missing", "using", "lacking", "untitled", "allowed"}


@dataclass(frozen=True)
class Text:
    template: str
    place: str  # file:line


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.silent += tag in ("style", "script", "code", "pre")
        self.texts += [value for name, value in attrs if name in ATTRIBUTES and value]

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("style", "script", "code", "pre")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.texts.append(data)


def texts_of_html(html: str) -> list[str]:
    parser = _Html()
    parser.feed(html)
    parser.close()
    return parser.texts


FRAGMENT = re.compile(rf'(?<![a-z-])(?:{"|".join(ATTRIBUTES)})="([^"]*)"')  # of a tag


def one_line(text: str) -> str:
    return " ".join(text.split())


def is_html(text: str) -> bool:
    return (
        re.search(r"<[a-z!/][^>]*>|^[^<]*/?>", text) is not None
        and re.search(r"</?[a-z][a-z0-9]*[ />]", text) is not None
    )


def is_script(text: str) -> bool:
    return "=>" in text or "element." in text or "document." in text


# ---- Python


def is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and (is_text(node.left) or is_text(node.right))
    if isinstance(node, ast.IfExp):
        return is_text(node.body) or is_text(node.orelse)
    return is_formatted(node)


def is_formatted(node: ast.AST) -> bool:
    """Markup("...") and "...".format(...)."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return is_text(node.func.value)
    return isinstance(node.func, ast.Name) and node.func.id == "Markup" and bool(node.args) and is_text(node.args[0])


def variants(node: ast.AST) -> list[str]:
    """All ways in which it reads."""
    if not is_text(node):
        return [HOLE]
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = [[v.value] if isinstance(v, ast.Constant) else inner(v) for v in node.values]
    elif isinstance(node, ast.BinOp):
        parts = [variants(node.left), variants(node.right)]
    elif isinstance(node, ast.IfExp):
        return variants(node.body) + variants(node.orelse)
    elif isinstance(node.func, ast.Attribute):
        return [re.sub(r"\{[a-z_0-9]*(:[^{}]*)?\}", HOLE, text) for text in variants(node.func.value)]
    else:
        return variants(node.args[0])
    ways = ["".join(way) for way in itertools.islice(itertools.product(*parts), MOST + 1)]
    assert len(ways) <= MOST, f"line {node.lineno}: reads in more than {MOST} ways; say it in fewer"
    return ways


def inner(value: ast.FormattedValue) -> list[str]:
    return variants(value.value) if value.conversion == -1 and value.format_spec is None else [HOLE]


def beneath(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in a text and is none of it: values in its holes, which may be made of texts again."""
    if isinstance(node, ast.JoinedStr):
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from beneath(part.value) if is_text(part.value) and part.conversion == -1 else [part.value]
    elif isinstance(node, ast.BinOp):
        for side in (node.left, node.right):
            yield from beneath(side) if is_text(side) else [side]
    elif isinstance(node, ast.IfExp):
        yield node.test
        for side in (node.body, node.orelse):
            yield from beneath(side) if is_text(side) else [side]
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            yield from beneath(node.func.value)
            yield from [*node.args, *(keyword.value for keyword in node.keywords)]
        else:
            yield from beneath(node.args[0])


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


class _Python:
    def __init__(self, place: str):
        self.place = place
        self.found: list[Text] = []

    def visit(self, node: ast.AST, shown: bool = False) -> None:
        """shown: a single word counts as well."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if is_text(node):
            for template in variants(node):
                self.take(template, node.lineno, shown)
            for part in beneath(node):
                self.visit(part)
            return
        if isinstance(node, ast.Raise):
            self.visit_raise(node)
        elif isinstance(node, ast.Call):
            self.visit_call(node, shown)
        elif isinstance(node, (ast.Assert, ast.Import, ast.ImportFrom, ast.arg)):
            return
        elif isinstance(node, ast.Compare):
            for part in (node.left, *node.comparators):
                if not is_text(part):
                    self.visit(part)
        elif isinstance(node, ast.Subscript):
            self.visit(node.value, shown)
            if not is_text(node.slice):
                self.visit(node.slice)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and re.fullmatch(r"[A-Z][A-Za-z ]+", str(key.value)):
                    self.visit(key)
                self.visit(value, shown)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and self.is_no_text(node):
            return
        else:
            types = (getattr(node, "returns", None), getattr(node, "annotation", None))
            for child in ast.iter_child_nodes(node):
                if child not in types:
                    self.visit(child, shown and isinstance(node, (ast.Tuple, ast.List, ast.IfExp, ast.BoolOp)))

    @staticmethod
    def is_no_text(node: ast.Assign | ast.AnnAssign) -> bool:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(name_of(target) in NO_TEXT_NAMES for target in targets)

    def visit_raise(self, node: ast.Raise) -> None:
        error = node.exc
        if isinstance(error, ast.Call) and name_of(error.func) not in ERRORS:
            return
        if error is not None:
            self.visit(error)

    def visit_call(self, node: ast.Call, shown: bool) -> None:
        name, root = name_of(node.func), node.func
        while isinstance(root, ast.Attribute):
            root = root.value
        if name in NO_TEXT_CALLS or name_of(root) in NO_TEXT:
            for part in [node.func, *node.args]:
                if not is_text(part) and name not in ("info", "warning", "exception", "debug"):
                    self.visit(part)
            return
        self.visit(node.func)
        for part in node.args:
            self.visit(part, name in ("Tab", "Button", "UploadButton", "append"))
        for keyword in node.keywords:
            if keyword.arg not in NO_TEXT_NAMES or name == "format":
                self.visit(keyword.value, keyword.arg in SHOWN)
            elif keyword.arg in ("js", "js_on_load"):
                self.visit(keyword.value)

    def take(self, template: str, line: int, shown: bool) -> None:
        place = f"{self.place}:{line}"
        if is_script(template):
            self.found += texts_of_script(template, place)
        else:
            html = is_html(template)
            inside = texts_of_html(template) if html else FRAGMENT.findall(template) or [template]
            for text in inside:
                self.found += [Text(part, place) for part in kept(text, shown or html)]


def texts_of_python(source: str, name: str) -> list[Text]:
    reader = _Python(name)
    reader.visit(ast.parse(source))
    return reader.found


def kept(text: str, shown: bool) -> list[str]:
    """The text as it is looked for; nothing where there is nothing to read in it."""
    text = one_line(text)
    bare = text.replace(HOLE, " ")
    if not WORD.search(bare):
        return []
    if shown or (PHRASE.search(text) and not is_code(text)):
        return [text]
    return []


SQL = re.compile(
    r"^\(?(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|PRAGMA|BEGIN|DROP|WITH|REPLACE|VACUUM|COMMIT|ROLLBACK)\b"
    r"|^ ?(WHERE|AND|ORDER BY|LIMIT) "
)
CODE = re.compile(
    r"^[\w./:{}*\\-]+$|://|^[a-z]+(-[a-z]+)+|^\.?[#.\[][a-z]|[;{] ?$|\\[dwsb]|^w-|^--[a-z-]+ ?\S*$|=\{\}$"
    r"|default-src|\w\(\)|^[A-Z]{2}[A-Z_ ]+$"
)


def is_code(text: str) -> bool:
    if SQL.search(text) or not text.isprintable():
        return True
    return CODE.search(text) is not None and not re.fullmatch(r"[A-Z][a-z]+", text)


# ---- JavaScript

TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?<=[=(,:?&|!{;\s])/(?![/*\s])(?:[^/\\\n\[]|\\.|\[(?:[^\]\\]|\\.)*\])+/[a-z]*|`""",
    re.DOTALL,
)


def texts_of_script(script: str, place: str) -> list[Text]:
    name, _, first = place.rpartition(":")
    found, at = [], 0

    def take(text: str, start: int) -> None:
        line = f"{name}:{int(first) + script.count(chr(10), 0, start)}"
        for part in texts_of_html(text) if is_html(text) else [text]:
            if not is_selector(part):
                found.extend(Text(one, line) for one in kept(part, False))

    while match := TOKEN.search(script, at):
        token, at = match[0], match.end()
        if token[0] in "\"'":
            take(re.sub(r"\\(.)", r"\1", token[1:-1]), match.start())
        elif token == "`":
            text, at, codes = template_of(script, at)
            take(text, match.start())
            for code, start in codes:
                found += texts_of_script(code, f"{name}:{int(first) + script.count(chr(10), 0, start)}")
    return found


def template_of(script: str, at: int) -> tuple[str, int, list[tuple[str, int]]]:
    """Of a `template`, behind its first `: with holes; where it ends; the code in the holes."""
    text, codes = "", []
    while script[at] != "`":
        if script[at] == "\\":
            text, at = text + script[at + 1], at + 2
        elif script.startswith("${", at):
            start, depth, at = at + 2, 1, at + 2
            while depth:
                if script[at] == "`":
                    _, at, _ = template_of(script, at + 1)
                    continue
                depth += {"{": 1, "}": -1}.get(script[at], 0)
                at += 1
            codes.append((script[start : at - 1], start))
            text += HOLE
        else:
            text, at = text + script[at], at + 1
    return text, at + 1, codes


SELECTOR = re.compile(
    r"^[.#\[]|\[[a-z-]+[\]=]|^[a-z]+, ?[a-z]+|\.w-|:is\(|:not\(|^[^ ]*$|^[a-z0-9 _.-]*[-_.0-9][a-z0-9 _.-]*$"
    r"|^[mM][0-9]|#[a-z]+[, ]|^data:"
)


def is_selector(text: str) -> bool:
    return SELECTOR.search(text) is not None and not re.fullmatch(r"[A-Z][a-z]+", text)


# ---- all of it

CATALOG = ("title", "hint", "licence", "about", "note", "words", "what", "words_needed", "description")


def texts_of_catalog() -> Iterator[Text]:
    path = ROOT / "configs" / "catalog.toml"

    def walk(value, key: str) -> Iterator[Text]:
        if isinstance(value, dict):
            for name, entry in value.items():
                yield from walk(entry, name)
        elif isinstance(value, list):
            for entry in value:
                yield from walk(entry, key)
        elif isinstance(value, str) and key in CATALOG:
            yield from (Text(text, "configs/catalog.toml:1") for text in kept(value, True))

    yield from walk(tomllib.loads(path.read_text(encoding="utf-8")), "")


def texts_of_patches() -> Iterator[Text]:
    """What the Doctor says goes wrong without a patch stands in its docstring."""
    for path in sorted((PACKAGE / "patches").glob("[!_]*.py")):
        words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for block in words.split("\n\n"):
            if block.startswith("Symptom:"):
                yield Text(one_line(block.removeprefix("Symptom:")), f"{path.relative_to(ROOT).as_posix()}:1")


def all_texts() -> list[Text]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        found += texts_of_python(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    for path in sorted(PACKAGE.rglob("*.js")):
        found += texts_of_script(path.read_text(encoding="utf-8"), f"{path.relative_to(ROOT).as_posix()}:1")
    return [*found, *texts_of_patches(), *texts_of_catalog()]
