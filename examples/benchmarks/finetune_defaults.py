"""Compare `finetune` without any option against a grid of learning rates and numbers of updates.

    python examples/benchmarks/finetune_defaults.py OUT --models MODEL… --tasks NAME=DIR[:ROWS]… [--seed N]

DIR has train.* and validation.* as for `finetune --data`. The task is NAME if distilkit knows it, else custom, with the
columns `text` and `label`. ROWS are drawn from the training rows, and at most 500 validation rows are used.
Each run is a directory below OUT, and finished runs are not repeated, so the script can be stopped at any time.
The last weights count (--keep last). OUT/table.md has a row for each model and task.
"""

import argparse
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import datasets

import distilkit
from distilkit.options.tasks import TaskName
from distilkit.tasks.catalogue import TASKS

RATES = (5e-5, 1e-4, 2e-4, 4e-4)
VALIDATION_ROWS = 500


def draw_rows(source: str, rows: int, out: Path) -> Path:
    """Write the drawn rows of a task once, and return their folder."""
    folder = out / "rows" / f"{Path(source).name}-{rows}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        for split, count in (("train", rows), ("validation", VALIDATION_ROWS)):
            files = next(iter(sorted(Path(source).glob(f"{split}.*"))))
            kind = "json" if ".json" in files.name else "csv"
            found = datasets.load_dataset(kind, data_files={split: str(files)}, split=split).shuffle(seed=0)
            partial.mkdir(parents=True, exist_ok=True)
            found.select(range(min(count, len(found)))).to_json(partial / f"{split}.jsonl")
        partial.rename(folder)
    return folder


def run(model: str, task: str, data: Path, out: Path, seed: int, **options: Any) -> dict[str, Any]:
    """Fine-tune unless it is done; return the record's settings and headline score."""
    known = task in TASKS
    if not (out / "distilkit.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        if not known:
            options |= {"text": ("text",), "label": "label"}
        name: TaskName = task if known else "custom"
        distilkit.finetune(model, task=name, data=data, output=out, seed=seed, keep="last", **options)
        for weights in out.glob("*.safetensors"):
            weights.unlink()
    record = json.loads((out / "distilkit.json").read_text())[-1]
    metrics = record["metrics"]
    name = f"{task}/{TASKS[task].metrics[0]}" if known else "custom/accuracy"
    return {"score": metrics[name], "updates": metrics["updates"], "seconds": metrics["seconds"], **record["config"]}


def cell(model: str, task: str, source: str, rows: int, out: Path, seed: int) -> str:
    """Run the defaults, and the grid for as many updates, for one model and task; return a row of the table."""
    data = draw_rows(source, rows, out)
    place = out / f"{Path(model).name}-{task}-{rows}-seed{seed}"
    own = run(model, task, data, place / "defaults", seed)
    updates = int(own["updates"])
    grid = [run(model, task, data, place / f"lr{lr:g}-updates{updates}", seed, lr=lr, steps=updates) for lr in RATES]
    best = max(grid, key=lambda found: found["score"])
    names = Path(model).name, task, f"{rows:,}", f"{updates}"
    scores = own["lr"], own["score"], *(found["score"] for found in grid), own["score"] - best["score"]
    return (
        f"| {' | '.join([*names, f'{scores[0]:g}', *(f'{score:.3f}' for score in scores[1:-1])])} | {scores[-1]:+.3f} |"
    )


def main() -> None:
    """Run all models on all tasks and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    heads = "model", "task", "rows", "updates", "default rate", "score", *(f"at {rate:g}" for rate in RATES), "to best"
    lines = [f"| {' | '.join(heads)} |", f"|:--|:--|{'--:|' * (len(heads) - 2)}"]
    for text, model in itertools.product(options.tasks, options.models):
        task, _, place = text.partition("=")
        source, _, rows = place.partition(":")
        lines.append(cell(model, task, source, int(rows or 10**9), options.out, options.seed))
        (options.out / "table.md").write_text("\n".join(lines) + "\n")
        print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
