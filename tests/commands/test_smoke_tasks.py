"""One epoch of every task on a few real rows, from a folder that is not part of distilkit.

DISTILKIT_DATA is that folder: glue/<task>/, imdb/ and squad/ with the train and validation files (IMDb: test) of each
data set, as `--data` reads them. A sample (train-sample.jsonl.gz) may replace a file that does not exist.
DISTILKIT_MODEL is the checkpoint to train [default: a tiny, randomly initialised one].
"""

import gzip
import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilkit.commands.evaluate import evaluate
from distilkit.commands.finetune import finetune
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.tasks import squad
from distilkit.tasks.catalogue import TASKS, Task

ROWS = {"train": 320, "validation": 48}  # a third of them for SQuAD, whose contexts make several windows
CUSTOM = Task("custom", "classification", ("text",), (), splits=(("custom", "validation"),))  # IMDb's rows
DATA = os.environ.get("DISTILKIT_DATA", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA, reason="requires a folder in DISTILKIT_DATA")]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    text = (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8").read()
    if ".json" in path.suffixes:
        return squad.flatten(json.loads(text))
    return [json.loads(line) for line in text.split("\n") if line]  # not splitlines(): a review may hold a U+0085


def sample(task: Task, split: str) -> list[dict[str, Any]]:
    """Return a few rows of a split, the same every time."""
    if task.kind == "span":
        version = "v2.0" if task.name == "squad_v2" else "v1.1"
        names = [f"dev-{version}*"]
        if split == "train":  # SQuAD 2.0 may be trained on its validation rows
            names = [f"train-{version}*.json.gz", *(["train-*.json.gz"] if version == "v1.1" else []), *names]
        folder = Path(DATA) / "squad"
    else:
        names = [f"{split}.jsonl*", f"{split}_matched.jsonl*", f"{split}-*.jsonl*", "test.jsonl*"]
        folder = Path(DATA) / ("imdb" if task.name in ("imdb", "custom") else f"glue/{task.name}")
    found = [path for name in names for path in sorted(folder.glob(name))]
    rows = read(found[0])
    count = ROWS[split] // (3 if task.kind == "span" else 1)
    return random.Random(0).sample(rows, min(count, len(rows)))  # noqa: S311


def write(folder: Path, task: Task) -> Path:
    """Write the samples of a task as `--data` reads them; return the folder."""
    folder.mkdir()
    for split, name in (("train", "train"), ("validation", task.splits[0][1])):
        lines = "".join(json.dumps(row) + "\n" for row in sample(task, split))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", [*(name for name, task in TASKS.items() if not task.zero_shot), "custom"])
def test_trains_and_scores_on_real_rows(name: str, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Losses and metrics of an epoch are within their bounds, and eval finds the same scores with default options."""
    task = TASKS.get(name, CUSTOM)
    data = write(tmp_path / "data", task)
    model = os.environ.get("DISTILKIT_MODEL") or str(make_checkpoint("bert", 2))
    out = tmp_path / "out"
    columns: dict[str, Any] = {"text": ("text",), "label": "label"} if name == "custom" else {}
    options: dict[str, Any] = {"epochs": 1.0, "batch_size": 16, "lr": 3e-4, "max_length": 64, "log_every": 1}
    options |= {"stride": 16} if task.kind == "span" else {}
    done = finetune(FinetuneOptions(model=model, task=name, data=data, output=out, **options, **columns))
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text("utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == done.metrics["updates"] >= 7
    assert all(math.isfinite(loss) for loss in losses)
    top = 100 if task.kind == "span" else 1
    scores = {metric: value for metric, value in done.metrics.items() if metric.startswith(f"{name}/")}
    assert scores
    counts = [metric for metric in scores if "/confusion/" in metric or metric.endswith("/count")]  # rows of a class
    assert all(-top <= value <= top for metric, value in scores.items() if metric not in counts)
    assert all(0 <= scores[metric] <= ROWS["validation"] for metric in counts)
    again = evaluate(EvalOptions(models=(str(out),), task=name, data=data, **columns)).metrics
    assert again == pytest.approx({metric: done.metrics[metric] for metric in again}, abs=1e-6)
