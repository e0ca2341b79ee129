"""Draw the learning curve of a run: every training loss and every held-out metric."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from distilkit.files import replacing, writing
from distilkit.training.log import NON_LOSS_KEYS, read_log

PICTURE = "learning-curve.svg"
MAX_POINTS = 300  # per curve; more cannot be told apart in a panel


def draw_run(out: Path) -> None:
    """Draw out/train.jsonl as out/learning-curve.svg."""
    import matplotlib as mpl  # takes a while to load
    from matplotlib.figure import Figure

    if not (lines := read_log(out)):
        return
    with mpl.rc_context({"svg.hashsalt": "distilkit", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(layout="constrained")
        draw_curve(figure, lines)
        with writing(out / PICTURE), replacing(out / PICTURE) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None})


def draw_curve(figure: Any, lines: Sequence[dict[str, Any]]) -> None:
    """Draw the lines of a train.jsonl over tokens, with a panel for the loss, each loss term and each held-out metric.

    The held-out loss is a masked-LM loss, so it shares the panel of that loss term, if there is one.
    """
    from matplotlib.ticker import EngFormatter

    keys = list(dict.fromkeys(key for line in lines for key in line))
    heldout = [key for key in keys if key.startswith("heldout")]
    terms = [key for key in keys if key not in NON_LOSS_KEYS and key not in heldout]
    terms = [term for term in terms if term != "loss" or len(terms) != 2]  # a single loss term is the loss itself
    panels = terms + [key for key in heldout if not (key == "heldout_loss" and "mlm" in keys)]
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure.set_size_inches(3.4 * columns, 2.6 * rows)
    for number, key in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number, title=key.replace("heldout_", "held-out "), xlabel="tokens")
        axes.xaxis.set_major_formatter(EngFormatter())
        marker = "o" if key.startswith("heldout") else ""
        axes.plot(*zip(*points(lines, key), strict=True), label="training", marker=marker, markersize=4)
        if key == "mlm" and "heldout_loss" in keys:
            axes.plot(*zip(*points(lines, "heldout_loss"), strict=True), label="held out", marker="o", markersize=4)
            axes.legend(frameon=False)


def points(lines: Sequence[dict[str, Any]], key: str, max_points: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return (tokens, value) of the lines with a key; average neighbours if there are more than `max_points`."""
    found = [(line["tokens"], line[key]) for line in lines if key in line]
    size = math.ceil(len(found) / max_points) or 1
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]
