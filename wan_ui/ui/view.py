"""What the server remembers of one open page."""

from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from wan_ui.ui.done_part import Ended


@dataclass
class Complaint:
    """What is wrong, said at `place` until it is mended: of a `field`, as it was when that had `value`, in the order
    of the person's acts at `turn`; see form.py."""

    place: str
    field: str
    words: str
    turn: int
    value: Any = None


@dataclass
class View:
    """Gradio hands every event of a page the same object: it is changed in place.

    active     ids of this person's waiting and running jobs
    last       the one that ended last while the page was open
    selected   the clip on the stage; batch: what one press has asked for, when all of it is there instead
    follow     jobs asked for here whose clips take the stage when they are done
    watch      look often until this time of `time.monotonic`, something was asked for
    sent       what the page shows already: name of a part -> what it was drawn from
    answers    how many of them have drawn something; looked: how many had, when the timer's last look was answered
    drawing    held while an answer is drawn, so that their numbers are the order in which they were
    ended      the jobs whose end the page has to tell, see done_part.py
    show       what comes into view, see in_view.py: a number that grows, the part, whether gently
    loras      those that are chosen: file, strength, target
    shelf      how often the LoRA shelf was opened; 0: it is closed
    words, starred, page  which clips the history shows
    zone       minutes by which this browser's clock is ahead of UTC; None: as this machine's
    removed    the clips that were deleted last, which can be taken back until `undo_until` of `time.monotonic`
    editing    the waiting job that Generate changes
    tray       pictures that one press makes clips of, see tray.py; tray_trouble: what is wrong with those just added
    model      in the form; so is `scheme`
    form       the other fields, see form.py
    fills      how often the server has filled in fields; filled: field -> the last of these that filled it in
    line       what the line at Generate was drawn from; lines: how often it has changed
    complaint  what is wrong with what was asked for
    crops      part of the form -> the crop of its picture, see picture.py
    shapes     part of the form -> the size and the model that its picture was last drawn for
    refused    parts of the form whose picture was just taken away because it was refused
    """

    active: list[str] = field(default_factory=list)
    last: str = ""
    selected: str = ""
    batch: str = ""
    follow: list[str] = field(default_factory=list)
    watch: float = 0.0
    sent: dict[str, Any] = field(default_factory=dict)
    answers: int = 0
    looked: int = 0
    ended: list[Ended] = field(default_factory=list)
    show: tuple[int, str, bool] = (0, "", False)
    loras: list[dict[str, Any]] = field(default_factory=list)
    shelf: int = 0
    words: str = ""
    starred: bool = False
    page: int = 0
    zone: int | None = None
    removed: list[str] = field(default_factory=list)
    undo_until: float = 0.0
    editing: str = ""
    tray: list[dict[str, str]] = field(default_factory=list)
    tray_trouble: str = ""
    model: str = ""
    scheme: str = ""
    form: dict[str, Any] = field(default_factory=dict)
    fills: int = 0
    filled: dict[str, int] = field(default_factory=dict)
    line: str = ""
    lines: int = 0
    complaint: Complaint | None = None
    crops: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.drawing = Lock()  # no field: Gradio copies those one by one

    def __deepcopy__(self, memo: dict) -> "View":
        """Gradio copies the first, empty one for each page."""
        return View()

    def bring(self, part: str, gently: bool = False) -> None:
        """With the next answer `part` comes into view; gently: only if nobody has scrolled since they asked for it."""
        self.show = (self.show[0] + 1, part, gently)
