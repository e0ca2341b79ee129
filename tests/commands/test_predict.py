"""predict: every row comes back with the model's own answer, in the order of the file."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import distilkit

TEXTS = ["return the value", "raise an error if it is not found", 'a, quoted "text"\nof two lines', "x"]


def write_csv(path: Path, texts: list[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "message"], *enumerate(texts)])
    return path


def test_a_class_and_its_probability(classifier: Path, tmp_path: Path) -> None:
    """Equal to a softmax over transformers' own logits, row by row; other columns are kept as they are."""
    done = distilkit.predict(str(classifier), data=write_csv(tmp_path / "new.csv", TEXTS), output=tmp_path / "p.csv")
    model, tokenizer = (
        auto.from_pretrained(classifier) for auto in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["message"]) for row in rows] == [(str(n), text) for n, text in enumerate(TEXTS)]
    for row in rows:
        with torch.no_grad():
            chances = model.eval()(**tokenizer(row["message"], return_tensors="pt")).logits.softmax(1)[0]
        best = int(chances.argmax())
        assert row["prediction"] == model.config.id2label[best].removeprefix("LABEL_")
        assert float(row["probability"]) == pytest.approx(float(chances[best]), abs=1e-5)
        each = [float(value) for name, value in row.items() if name.startswith("probability_")]
        assert each == pytest.approx(chances.tolist(), abs=1e-5)
    assert done.metrics["rows"] == 4
    assert sum(value for name, value in done.metrics.items() if name.startswith("share/")) == pytest.approx(1)


def test_rows_with_other_columns_lose_nothing(classifier: Path, tmp_path: Path) -> None:
    """A column that only a later JSON row has is in the table, too."""
    rows = [{"message": "return the value"}, {"message": "raise an error", "date": "2026-01-02"}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    distilkit.predict(str(classifier), data=tmp_path / "new.jsonl", output=tmp_path / "p.tsv")
    with (tmp_path / "p.tsv").open(newline="") as file:
        assert [row["date"] for row in csv.DictReader(file, delimiter="\t")] == ["", "2026-01-02"]


def test_json_lines_hold_lists(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Several labels a row: those above one half, with the probability of each."""
    names = {0: "a", 1: "b", 2: "c"}
    model = make_checkpoint(
        "bert", 2, AutoModelForSequenceClassification, id2label=names, problem_type="multi_label_classification"
    )
    distilkit.predict(str(model), data=write_csv(tmp_path / "new.csv", TEXTS), output=tmp_path / "p.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row["message"] for row in rows] == TEXTS
    for row in rows:
        assert row["prediction"] == [label for label, chance in row["probabilities"].items() if chance > 0.5]
        assert list(row["probabilities"]) == ["a", "b", "c"]
    distilkit.predict(str(model), data=write_csv(tmp_path / "new.csv", TEXTS), output=tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == [",".join(row["prediction"]) for row in rows]


def test_tags_of_words(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A tag for each word, that of its first token."""
    names = {0: "O", 1: "B-X", 2: "I-X"}
    path = make_checkpoint("bert", 2, AutoModelForTokenClassification, id2label=names)
    (tmp_path / "new.conll").write_text("return O\nvalue O\n\nraise O\n\n")
    distilkit.predict(str(path), data=tmp_path / "new.conll", output=tmp_path / "p.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    model, tokenizer = (auto.from_pretrained(path) for auto in (AutoModelForTokenClassification, AutoTokenizer))
    for row, words in zip(rows, (["return", "value"], ["raise"]), strict=True):
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            tags = model.eval()(**encoded).logits[0].argmax(1)
        first = [encoded.word_ids().index(number) for number in range(len(words))]
        assert row["prediction"] == [names[int(tags[place])] for place in first]


def test_a_failure_leaves_no_file(classifier: Path, tmp_path: Path) -> None:
    """A column that would be overwritten stops before anything is written."""
    (tmp_path / "new.csv").write_text("message,prediction\na b,1\n")
    with pytest.raises(distilkit.DistilkitError, match="rename it"):
        distilkit.predict(str(classifier), data=tmp_path / "new.csv", output=tmp_path / "p.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_shares_of_labels_that_differ_in_signs(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Both are _50K in the name of a metric: each has a share of its own."""
    names = {0: ">50K", 1: "<=50K"}
    model = make_checkpoint("bert", 2, AutoModelForSequenceClassification, id2label=names)
    done = distilkit.predict(str(model), data=write_csv(tmp_path / "new.csv", TEXTS), output=tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = [row["prediction"] for row in csv.DictReader(file)]
    assert done.metrics["share/_50K"] == rows.count("<=50K") / 4
    assert done.metrics["share/_50K-2"] == rows.count(">50K") / 4
