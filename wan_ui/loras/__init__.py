"""LoRA files: what is in the folder, what each file is, and which expert it belongs on. No torch, no GPU.

    entries = available(settings)                  # list[LoraEntry]; cheap, call it at every refresh
    target, reason = suggest(entry, model)
    texts = warnings(LoraSpec(entry.name, 1.0, target), entry)
    specs = check(specs, model, settings)          # the server's check: UserError(field="loras")

keys.py    tensor names of every trainer -> one canonical form
scales.py  what the metadata say of a LoRA's strength
entry.py   LoraEntry
folder.py  the scan
pairs.py   which two files are one LoRA
words.py   trigger words and tags
covers.py  the picture of one
arrival.py one that comes in through the page: named, looked at, kept
choice.py  targets, warnings, the check of what a person chose, and where its files are

The engines apply what is chosen (wan_ui/engines/lora.py) and answer with what was matched:
clip.facts["loras"] is text such as "sepia.safetensors x1 -> low noise 80/80".
"""

from wan_ui.loras.choice import check, fits, locate, lora_warnings, suggest, trigger_words, warnings
from wan_ui.loras.entry import LoraEntry, base_title
from wan_ui.loras.folder import available, find, scan

__all__ = [
    "LoraEntry", "available", "base_title", "check", "find", "fits", "locate", "lora_warnings", "scan",
    "suggest", "trigger_words", "warnings",
]  # fmt: skip
