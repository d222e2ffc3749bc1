"""Progress on standard error: a bar where a person looks on; into a pipe or a log, which keep all they get, a plain
line when something new begins and now and then in between."""

import sys
import time

EVERY = 10.0  # seconds between two lines about the same thing


def watched() -> bool:
    return sys.stderr.isatty()


class Lines:
    """Tells `words` when `part` is another than before, and again after EVERY seconds if they have changed."""

    def __init__(self):
        self.part, self.words, self.told = None, "", 0.0

    def tell(self, part: str, words: str) -> None:
        now = time.monotonic()
        if part == self.part and (words == self.words or now - self.told < EVERY):
            return
        self.part, self.words, self.told = part, words, now
        print(words, file=sys.stderr, flush=True)
