"""What `download musetalk` fetches: the official weights, from four repositories into one folder."""

from wan_ui.errors import UserError
from wan_ui.files import download
from wan_ui.lipsync.choice import OFFICIAL
from wan_ui.lipsync.files import DWPOSE_SOURCES, NETWORKS, SOURCES
from wan_ui.settings import Settings


def plan(settings: Settings, *, dwpose: bool = False, check: bool = False) -> list[download.Item]:
    """Every file, as `download.plan` gives those of a model. `dwpose`: its two ONNX files too. Raises UserError."""
    folder = settings.models / OFFICIAL
    alternatives = {name: names for names in NETWORKS.values() for name in names}
    wanted = SOURCES | (DWPOSE_SOURCES if dwpose else {})
    items = []
    for place, (repo, file, _) in wanted.items():
        here = [folder / name for name in alternatives.get(place, (place,)) if (folder / name).is_file()]
        if here and not (check and here[0] == folder / place):
            items.append(download.Item(repo, file, "", here[0], here[0].stat().st_size, "", "main", present=True))
            continue
        try:
            item = download.describe(repo, file, folder / place, _address(repo, file, settings))
        except OSError as error:
            reason = str(getattr(error, "reason", "") or error)
            lines = [f"{settings.hub} cannot be reached ({reason}).", *_by_hand(wanted, settings)]
            raise UserError("\n".join(lines)) from None
        items.append(download.checked(item) if here else item)
    return download.with_copies(items, settings)


def _address(repo: str, file: str, settings: Settings) -> str:
    return f"{settings.hub}/{repo}/resolve/main/{file}"


def _by_hand(wanted: dict[str, tuple[str, str, int]], settings: Settings) -> list[str]:
    folder = settings.models / OFFICIAL
    lines = ["Fetch these files on another machine and put them in place:"]
    for place, (repo, file, size) in wanted.items():
        if not (folder / place).is_file():
            words = f" (about {size / 1e9:.2f} GB)" if size else ""
            lines.append(f"  {_address(repo, file, settings)}{words} -> {folder / place}")
    return lines
