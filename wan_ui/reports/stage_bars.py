"""The stages of `bench` as a table, and as a PNG: a bar for what was measured, a mark for the floor."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, LEFT, RIGHT, ROW, TOP = 1000, 190, 170, 44, 100
PAPER, INK, GREY, BAR, FLOOR = "#ffffff", "#1c1e21", "#6b7280", "#3b82c4", "#d9480f"
Row = tuple[str, float, float | None]  # stage, seconds, the floor's seconds


def rows_of(figures: dict) -> list[Row]:
    """One of each stage; of denoising one of each expert's step, and all of it."""
    floors, stages = figures["floors_s"], figures["stages_s"]
    steps = figures["expert_step_s"]
    rows: list[Row] = []
    for stage, seconds in stages.items():
        if stage == "denoise":
            rows += [(f"one step, {title}", spent, floors.get("step")) for title, spent in steps.items()]
            whole = floors["step"] * figures["steps"] if "step" in floors else None
            rows.append((f"all {figures['steps']} steps", seconds, whole))
        else:
            rows.append((stage, seconds, floors.get(stage)))
    return rows


def table(figures: dict) -> list[str]:
    """Lines for people."""
    lines = [f"{'stage':<28}{'seconds':>9}{'floor':>9}{'times':>8}"]
    for stage, seconds, floor in rows_of(figures):
        least = f"{floor:9.3f}{seconds / floor:8.1f}" if floor else f"{'-':>9}{'':8}"
        lines.append(f"{stage:<28}{seconds:9.3f}{least}")
    return [*lines, f"floors: {figures['floors_of']} (wan_ui/qa/floors.py)"]


def draw(figures: dict, path: Path) -> None:
    """Write the PNG."""
    rows = rows_of(figures)
    height = TOP + ROW * len(rows) + 70
    image = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(image)
    large, usual, small = (ImageFont.load_default(size) for size in (22, 16, 13))
    title = f"{figures['model']} {figures['scheme']}, {figures['engine']}"
    pen.text((24, 18), title, INK, large)
    what = f"{figures['size']}, {figures['frames']} frames, {figures['steps']} steps, {figures['card']}"
    pen.text((24, 52), what, GREY, usual)
    pen.text((24, 74), figures.get("label", ""), FLOOR, small)
    longest = max(max(seconds, floor or 0.0) for _, seconds, floor in rows)
    scale = (WIDTH - LEFT - RIGHT) / max(longest, 1e-9)
    for number, (stage, seconds, floor) in enumerate(rows):
        top = TOP + ROW * number
        pen.text((LEFT - 12, top + 14), stage, INK, small, anchor="rm")
        end = LEFT + max(1.0, seconds * scale)
        pen.rectangle((LEFT, top, end, top + 28), BAR)
        words, right = f"{seconds:.3f} s", end
        if floor:
            at = LEFT + floor * scale
            pen.rectangle((at - 1, top - 4, at + 2, top + 32), FLOOR)
            words, right = f"{words}  (floor {floor:.3f})", max(end, at)
        pen.text((right + 10, top + 14), words, INK, small, anchor="lm")
    pen.rectangle((24, height - 44, 27, height - 26), FLOOR)
    pen.text((36, height - 35), f"floor: {figures['floors_of']}", GREY, small, anchor="lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
