"""The same app as of serve_scripted.py, again and again, without the seconds that its imports take.

`python -m tests.ui.fork_scripted` imports all of it and forks for each line that it reads: {"environ": all of the app's
environment, "log": the file it writes to}; it answers with the child's id. To {"ended": id} of one that has ended it
answers with its exit code. The child is what `serve_scripted` is right after its imports. What an interpreter reads
when it begins (PYTHON..., the locale) is as here: an app whose start is what is tested is a process of its own.
"""

import json
import os
import sys


def become(environ: dict[str, str], log: str) -> None:
    """Be the app, with its environment and its files."""
    os.environ.clear()
    os.environ.update(environ)
    nothing = os.open(os.devnull, os.O_RDONLY)
    writing = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for ours, place in ((nothing, 0), (writing, 1), (writing, 2)):
        os.dup2(ours, place)
    serve_scripted.main()


if __name__ == "__main__":  # the apps' workers are spawned: they import this as well, and need nothing of it
    from tests.ui import serve_scripted
    from wan_ui.importing import no_collection

    with no_collection():
        import wan_ui.ui.launch
        import wan_ui.ui.page  # noqa: F401, with all of Gradio; no thread has begun

    for line in sys.stdin:
        asked = json.loads(line)
        if "ended" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["ended"], 0)[1])
        elif not (answer := os.fork()):
            become(**asked)
            break
        print(answer, flush=True)
