"""A run's learning curve as a picture: every loss in training, and what held-out text said."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from distilkit.files import replacing
from distilkit.progress import say

PICTURE = "learning-curve.svg"
POINTS = 300  # of a curve; more would be averaged by the eye anyway
NO_LOSS = {"step", "lr", "tokens", "seconds", "tokens_per_second", "heldout_loss", "heldout_agreement"}


def draw_run(out: Path) -> None:
    """Draw out/train.jsonl as out/learning-curve.svg; without matplotlib, say how to get it."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        say("no learning curve is drawn without matplotlib: pip install 'distilkit[plots]'")
        return
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    with mpl.rc_context({"svg.hashsalt": "distilkit", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(layout="constrained")
        draw_curve(figure, lines)
        with replacing(out / PICTURE) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None})


def draw_curve(figure: Any, lines: Sequence[dict[str, Any]]) -> None:
    """Draw the lines of a train.jsonl over tokens: a panel each for the loss, its parts, and what is held out.

    The held-out loss is masked LM's, so it stands beside that part, where there is one.
    """
    from matplotlib.ticker import EngFormatter

    keys = list(dict.fromkeys(key for line in lines for key in line))
    parts = [key for key in keys if key not in NO_LOSS]
    parts = [part for part in parts if part != "loss" or len(parts) != 2]  # of one part, its own panel is enough
    panels = parts + [
        key for key in keys if key.startswith("heldout") and not (key == "heldout_loss" and "mlm" in keys)
    ]
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure.set_size_inches(3.4 * columns, 2.6 * rows)
    for place, key in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place, title=key.replace("heldout_", "held-out "), xlabel="tokens")
        axes.xaxis.set_major_formatter(EngFormatter())
        marker = "o" if key.startswith("heldout") else ""
        axes.plot(*zip(*points(lines, key), strict=True), label="training", marker=marker, markersize=4)
        if key == "mlm" and "heldout_loss" in keys:
            axes.plot(*zip(*points(lines, "heldout_loss"), strict=True), label="held out", marker="o", markersize=4)
            axes.legend(frameon=False)


def points(lines: Sequence[dict[str, Any]], key: str, most: int = POINTS) -> list[tuple[float, float]]:
    """Return (tokens, value) of the lines that carry a key; of more than `most`, neighbours' means."""
    found = [(line["tokens"], line[key]) for line in lines if key in line]
    size = math.ceil(len(found) / most) or 1
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]
