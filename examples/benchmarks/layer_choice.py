"""Is a better student before distillation a better one after it? Compare the strategies of init and its search.

    python examples/benchmarks/layer_choice.py TEACHER TRAIN_TEXT HELDOUT_TEXT DIRECTORY [distill options …]

Each strategy's student is distilled with the same options. The search and the distillation use TRAIN_TEXT; the losses
in the table are on HELDOUT_TEXT. Finished steps in DIRECTORY are not repeated, so an interrupted run can be continued.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

STRATEGIES = ("search", "spread", "alternate", "first", "last")


def distilkit(*words: object) -> dict[str, Any]:
    """Run a command and return its record, which is read from the output directory if the command is finished."""
    output = Path(str(words[words.index("-o") + 1]))
    if (output / "distilkit.json").is_file():
        return dict(json.loads((output / "distilkit.json").read_text())[-1])
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "distilkit", *map(str, words), "--json"]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def main(teacher: str, train: str, heldout: str, directory: str, *options: str) -> None:
    """Print a Markdown table with a row per choice of layers."""
    place, starts = Path(directory), {}
    for strategy in STRATEGIES:
        text = ["--corpus", train] if strategy == "search" else []
        done = distilkit("init", teacher, "-o", place / strategy, "--strategy", strategy, *text)
        starts.setdefault(done["environment"]["kept_layers"], []).append(strategy)
        if strategy == "search":
            measured = done
    print("| strategy | layers | loss in search | agreement in search | held-out loss before | held-out loss after |")
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
