"""An earlier eval as --baseline: the mark of the scored rows, and what is refused before the scoring."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from distilkit.errors import DistilkitError
from distilkit.evaluation.baseline import check_baseline, mark_rows, read_earlier
from distilkit.evaluation.embeddings import EmbeddingScorer
from distilkit.options.evaluate import EvalOptions
from distilkit.record import Record, json_text, record
from distilkit.tasks.catalogue import resolve
from distilkit.tasks.rows import hash_rows

ROWS = [{"text": "a film", "label": "1"}, {"text": "the value", "label": "0"}]
PAIRS = [{"sentence1": "a", "sentence2": "b", "score": 0.5}, {"sentence1": "c", "sentence2": "d", "score": 1.0}]
JUDGED = [{"query": "a", "passage": "x", "label": 1}, {"query": "a", "passage": "y", "label": 0}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        path.write_text("\n".join(map(",".join, [[*rows[0]], *(map(str, row.values()) for row in rows)])) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mark(model: str, task: str, data: Path, **more: Any) -> dict[str, str]:
    """Return the marks that an eval of these rows records."""
    options = EvalOptions(models=(model,), task=task, data=data, **more)  # type: ignore[arg-type]
    (chosen,) = resolve(options)
    return mark_rows([chosen], options, EmbeddingScorer(chosen, options) if chosen.zero_shot else None)


@pytest.mark.parametrize(
    ("task", "rows", "changed"),
    [
        ("custom", ROWS, {"text": "the file"}),
        ("custom", ROWS, {"label": "1"}),
        ("sts", PAIRS, {"sentence2": "e"}),
        ("sts", PAIRS, {"score": 0.25}),
        ("retrieval", JUDGED, {"passage": "z"}),
        ("retrieval", JUDGED, {"label": 2}),
    ],
)
def test_other_rows_have_another_mark(
    make_checkpoint: Callable[..., Path], tmp_path: Path, cache: Path, task: str, rows: Any, changed: Any
) -> None:
    """A text, a label or a grade that differs; a file of another name or format with the same rows does not."""
    model = str(make_checkpoint("bert", 1, AutoModelForSequenceClassification, id2label={0: "0", 1: "1"}))
    more = {"text": ("text",), "label": "label"} if task == "custom" else {}
    first = mark(model, task, write(tmp_path / "first.jsonl", rows), **more)
    assert first.keys() == {f"scored_rows/{task}"}
    assert mark(model, task, write(tmp_path / "second.csv", rows), **more) == first
    other = mark(model, task, write(tmp_path / "third.jsonl", [rows[0], rows[1] | changed]), **more)
    assert other.keys() == first.keys()
    assert other != first


def test_the_text_of_an_agreement_has_a_mark(tmp_path: Path, cache: Path) -> None:
    """It is the same for the same documents."""
    found = []
    for name, text in {"a": "one\ntwo\n", "b": "one\ntwo\n", "c": "one\nthree\n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
        options = EvalOptions(models=("m",), agreement=str(tmp_path / f"{name}.txt"))
        found.append(mark_rows([], options, None)["scored_rows/agreement"])
    assert (found[0] == found[1], found[0] == found[2]) == (True, False)


OPTIONS = EvalOptions(models=("m",), task="sst2", baseline=Path("b.json"))
NOW = {"scored_rows/sst2": "1", "scored_rows/agreement": "2"}
EARLIER: Record = record("eval", OPTIONS, {"sst2/accuracy": 0.9, "baseline/sst2/accuracy": 0.8}, **NOW)
NAMES = ["sst2/accuracy", "sst2/f1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"environment": NOW | {"scored_rows/sst2": "3"}},
            "'b.json' was measured on other rows .sst2.: give an eval of the same rows",
        ),
        (
            {"environment": NOW | {"scored_rows/agreement": "3"}},
            "another text .agreement.: give an eval of the same text",
        ),
        ({"metrics": {"rte/accuracy": 0.5}}, "'b.json' has none of these metrics: give an eval of the same task"),
        ({"metrics": {"sst2/f1": 0.5}}, "--baseline has no metric for --require 'accuracy>=baseline'"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], message: str) -> None:
    """Other rows, other metrics, or none for a gate; a record of an older version has no mark and is taken."""
    options = replace(OPTIONS, require=("accuracy>=baseline", "sst2/accuracy>=0.5"))
    for same in (EARLIER, replace(EARLIER, environment={})):
        check_baseline(same, NAMES, NOW, options)
    with pytest.raises(DistilkitError, match=message):
        check_baseline(replace(EARLIER, **changes), NAMES, NOW, options)


def test_the_baseline_of_a_baseline_is_left_out(tmp_path: Path) -> None:
    """Only the metrics of the earlier eval itself are compared; the marks are read back as they were written."""
    (tmp_path / "b.json").write_text(json_text(EARLIER.to_json()))
    found = read_earlier(tmp_path / "b.json")
    assert found.metrics == {"sst2/accuracy": 0.9}
    assert found.environment == EARLIER.environment


def test_a_gate_needs_the_baseline_of_every_model() -> None:
    """With three models now and two before, the third has nothing to be compared with."""
    options = replace(OPTIONS, models=("a", "b", "c"), require=("accuracy>=baseline",))
    names = [f"{number}/sst2/accuracy" for number in range(3)]
    check_baseline(replace(EARLIER, metrics=dict.fromkeys(names, 0.9)), names, NOW, options)
    with pytest.raises(DistilkitError, match="of every model"):
        check_baseline(replace(EARLIER, metrics=dict.fromkeys(names[:2], 0.9)), names, NOW, options)


def test_names_of_several_labels_do_not_count(tmp_path: Path) -> None:
    """Vectors of 0 and 1 get the names of a model's labels, which another model calls otherwise."""
    (task,) = resolve(replace(OPTIONS, task="custom", data=tmp_path, text=("text",), label="labels"))
    task = replace(task, kind="multi-label")
    hashes = [
        hash_rows(Dataset.from_dict({"text": ["a", "b"], "labels": labels}), task)
        for labels in ([["x"], ["x", "y"]], [["LABEL_0"], ["LABEL_0", "LABEL_1"]], [["x"], []])
    ]
    assert hashes[0] == hashes[1] != hashes[2]
