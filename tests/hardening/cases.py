"""The cases of docs/hardening.md: number, what happens, what must hold; and what cannot be tried where the tests run.

The tests of a case bear its number: `@pytest.mark.hardening(7)`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """untried: what of it needs a machine that the tests do not have, and what stands for it."""

    number: int
    case: str
    promise: str
    untried: str = ""


CASES = (
    Case(
        1, "A forged path of a file (`/etc/passwd`, another's clip); functions of components", "Refused, nothing read"
    ),
    Case(
        2,
        "`..`, absolute paths, links and other cases in a path, a LoRA's or a model's name",
        "Refused: what a path is after links must lie in its folder",
    ),
    Case(3, "A value that no list offers, through the API", "Checked again on the server; the refusal names the field"),
    Case(4, "An address where a file is expected (169.254.169.254, loopback)", "Uploads only; no request leaves"),
    Case(5, "What is served by default", "127.0.0.1 alone, no share link; a login by `WAN_UI_AUTH`"),
    Case(6, "Requests from other sites' pages, `Origin: null`", "Refused"),
    Case(7, "SVG or HTML uploaded as a picture", "Refused by content; kept files are never shown as pages"),
    Case(8, "Uploads that are too large, broken off or no form", "A named limit; nothing stays; the app goes on"),
    Case(9, "A name for the output from outside", "Not taken: ids and names are the server's"),
    Case(10, "A pickle as LoRA, whatever it is called", "Refused by content, never unpickled"),
    Case(
        11,
        "Official weights that are pickles (T5, VAE, MuseTalk)",
        "Read as weights alone; code in them is refused; downloads are held against their sha256",
    ),
    Case(
        12,
        "GGUF with counts of 2^63, many dimensions, 43 bytes on which a parser hangs",
        "Bounded before anything is parsed, a clear error at once",
    ),
    Case(13, "Safetensors with a huge header, wrong offsets, names twice", "A clear error"),
    Case(
        14,
        "A LoRA of wrong shapes, with NaN, of rank 100,000, without a known key, or for the other expert",
        "Refused before or rolled back: the clip is that of the base model",
    ),
    Case(
        15,
        "Pictures: bombs, one pixel high, broken off, CMYK, 16 bits, alpha, turned, animated",
        "Made right or named; memory is bounded",
    ),
    Case(
        16,
        "Sound: an hour, nothing, not sound, playlists, `concat:`, names that begin with `-`",
        "A limit to its length, files alone, a clear error",
    ),
    Case(
        17,
        "Prompts: a megabyte, NUL, emoji, right to left, HTML",
        "The limit is said; text stays text wherever it is shown",
    ),
    Case(
        18,
        "Out of memory in the middle of a job, then another job",
        "What would fit is said, memory comes back, the next clip is that of its seed",
        untried="On a GPU: `tests/gpu/test_failures.py`, with a card. Here the LightX2V engine with stand-ins, "
        "and the real diffusers engine whose process may take no more memory.",
    ),
    Case(
        19,
        "SIGSEGV or SIGKILL of the worker at any stage",
        "The job fails by stage and signal, a new worker takes the next one, the page lives",
    ),
    Case(20, "The worker hangs", "A deadline for each stage; it is ended and said"),
    Case(21, "The tab is closed or loaded again, the job waiting or running", "The job goes on; the page finds it"),
    Case(22, "Cancel at each stage", "It stops within a step; no part of a file stays"),
    Case(23, "Twenty people at once", "In turns, with their places said; each sees their own clips"),
    Case(
        24,
        "`kill -9` of the whole app in the middle of a job",
        "History whole, running jobs interrupted, waiting ones kept",
    ),
    Case(
        25,
        "The disk is full while encoding, or while the job is written",
        "A clear error, no half files, the table sound",
        untried="A really full file system needs a mount of its own: here no file may grow (RLIMIT_FSIZE), "
        "and SQLite answers that the disk is full.",
    ),
    Case(26, "The outputs grow", "A quota by size and age, oldest first, never a running job's"),
    Case(
        27,
        "A download that is cut off, or wrong with the right size",
        "It goes on; other content is fetched again and never used",
    ),
    Case(28, "No network while files are fetched", "Which file, from where, and where to put it by hand"),
    Case(29, "ffmpeg is missing or fails", "Its own words; the frames are kept"),
    Case(30, "Two apps on one folder or port", "A clear error, nothing damaged"),
    # Beyond the thirty.
    Case(31, "The page asked under names of others (DNS rebinding)", "Refused; the owner's names are answered"),
    Case(
        32,
        "A proxy before the page, and who claims to be one",
        "Nobody behind one is the person at this machine unless the proxy is named",
    ),
    Case(
        33,
        "Values of any kind in place of any other, through every handler",
        "Answered or refused in words, never an error of ours",
    ),
    Case(
        34,
        "The job table is locked by another program, full or damaged",
        "What waits is written later; what fails is said; no job gets another's clip",
    ),
    Case(
        35,
        "Rows, metadata, settings and caches of other versions, or damaged",
        "Read as far as they are understood; the rest is named",
    ),
    Case(36, "Stop in the middle of a load or a long step", "It ends soon, without a traceback, the job interrupted"),
    Case(
        37, "Out of memory on a machine without a GPU", "As 18: a refusal with what would fit, not an unexpected error"
    ),
    Case(
        38,
        "Several commands beside each other and beside the app",
        "Each gets its clip; who waits takes the queue over",
    ),
    Case(39, "Passwords tried one after the other", "After ten wrong ones from an address the next ones wait"),
    Case(40, "Anything before the login", "Nothing but the login form answers"),
    Case(
        41,
        "Floods: connections, requests, headers that never end, jobs, opened pages",
        "Bounds for each address; the others are served",
    ),
    Case(
        42,
        "Text that is no Unicode, or lies about its direction",
        "Made valid where it comes in; drawing survives what is stored",
    ),
)
