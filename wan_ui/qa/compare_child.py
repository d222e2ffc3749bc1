"""python -m wan_ui.qa.compare_child: clips measured, and written side by side, in a process of its own.

The page's process asks here (wan_ui/ui/comparisons.py): decoding and SSIM take minutes of a core and, when something
is wrong with a file, any amount of memory. Asked in JSON on standard input: clips (path, name, settings), folder
for the export or null, pairs if they are known already. Answers in lines of JSON: {"done": frames} while it works,
then {"result": ...} or {"error": words}.
"""

import json
import sys
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.qa import compare
from wan_ui.system import limit_addresses, stand_back

MEMORY = 3 * 2**30  # bytes of addresses, for this process and for each decoder that it starts


def say(**values) -> None:
    print(json.dumps(values), flush=True)


def run(asked: dict) -> dict:
    items = [compare.read_item(Path(clip["path"]), clip["name"], clip["settings"]) for clip in asked["clips"]]
    if asked["pairs"]:
        pairs = [compare.Pair(**values) for values in asked["pairs"]]
    else:
        pairs = compare.measure(items, lambda count: say(done=count))
    files = {}
    if asked["folder"]:
        files = {name: str(path) for name, path in compare.export(items, pairs, Path(asked["folder"])).items()}
    return {**compare.report(items, pairs), "fps": items[0].fps, "size": items[0].size, "files": files}


def main() -> None:
    limit_addresses(MEMORY)
    stand_back()
    try:
        say(result=run(json.load(sys.stdin)))
    except UserError as error:
        say(error=str(error))
    except MemoryError:
        say(
            error=f"compare: the clips need more than {MEMORY / 2**30:.0f} GiB of memory; compare fewer or smaller ones"
        )


if __name__ == "__main__":
    main()
