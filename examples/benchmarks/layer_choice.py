"""Does a better start end better? Extract a student by each strategy and by search, distil all alike, print a table.

    python examples/benchmarks/layer_choice.py TEACHER TRAIN_TEXT HELDOUT_TEXT WORKPLACE [distill options …]

The search measures on TRAIN_TEXT, the distillation trains on it, and the losses shown are on HELDOUT_TEXT.
What is finished in WORKPLACE is not done again, so a run that was interrupted goes on.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

STRATEGIES = ("search", "spread", "alternate", "first", "last")


def distilkit(*words: object) -> dict[str, Any]:
    """Run a command and return its record; one that was run before is read from its output directory."""
    output = Path(str(words[words.index("-o") + 1]))
    if (output / "distilkit.json").is_file():
        return dict(json.loads((output / "distilkit.json").read_text())[-1])
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "distilkit", *map(str, words), "--json"]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def main(teacher: str, train: str, heldout: str, workplace: str, *options: str) -> None:
    """Print a Markdown table: a row for each distinct choice of layers."""
    place, starts = Path(workplace), {}
    for strategy in STRATEGIES:
        text = ["--corpus", train] if strategy == "search" else []
        done = distilkit("init", teacher, "-o", place / strategy, "--strategy", strategy, *text)
        starts.setdefault(done["environment"]["kept_layers"], []).append(strategy)
        if strategy == "search":
            measured = done
    print("| strategy | layers | measured by search | agreement | held-out at the start | held-out at the end |")
    print("|---|---|--:|--:|--:|--:|")
    for layers, strategies in starts.items():
        out = place / f"{strategies[0]}-distilled"
        text = ["--corpus", train, "--heldout", heldout]
        end = distilkit("distill", place / strategies[0], "-o", out, *text, *options)["metrics"]["heldout_loss"]
        lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
        start = next(line["heldout_loss"] for line in lines if "heldout_loss" in line)
        by_search = next(
            name for name, chosen in measured["environment"].items() if name[:11] == "strategies/" and chosen == layers
        )
        loss, agreement = (measured["metrics"][f"{by_search}/{metric}"] for metric in ("loss", "agreement"))
        names = ", ".join(strategies)
        print(f"| {names} | {layers} | {loss:.3f} | {agreement:.3f} | {start:.3f} | {end:.3f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
