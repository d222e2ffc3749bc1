"""Quantise Wan DIT weights from the command line: python tools/quantise.py --input X --type fp8 --output Y

--input is a `.safetensors` or `.gguf` file, or a folder: then every such file below it is written to
the folder --output under the same relative name.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wan_ui.errors import UserError
from wan_ui.files.quantise import TYPES, quantise_file, suffix


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help=".safetensors or .gguf file, or a folder of them")
    parser.add_argument("--type", choices=TYPES, required=True)
    parser.add_argument("--output", type=Path, required=True, help="file, or folder when --input is one")
    args = parser.parse_args()
    try:
        if args.input.is_dir():
            files = sorted(p for p in args.input.rglob("*") if p.suffix in (".safetensors", ".gguf"))
            if not files:
                raise UserError(f"{args.input}: holds no .safetensors or .gguf file")
            pairs = [(p, args.output / p.relative_to(args.input).with_suffix(suffix(args.type))) for p in files]
        else:
            pairs = [(args.input, args.output)]
        for source, target in pairs:
            quantise_file(source, target, args.type)
            print(f"{source} ({source.stat().st_size:,} bytes) -> {target} ({target.stat().st_size:,} bytes)")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
