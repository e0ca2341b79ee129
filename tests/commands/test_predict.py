"""predict: every row comes back with the model's own answer, in the order of the file."""

import csv
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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


def test_json_rows_stay_as_they_are_written(classifier: Path, tmp_path: Path) -> None:
    """Numbers keep their digits, whatever a float or a 64-bit integer can hold; lists of objects become lines."""
    kept = [
        '{"id": 12345678901234567890123, "message": "return the value", "price": 1.10, "big": 1e999',
        '{ "message":"raise an error" , "nested": {"a": [0.10, null]}',
    ]
    expected = [f'{row}, "prediction": ' for row in kept]
    for name, text in {
        "lines.jsonl": f"{kept[0]}}}\n\n{kept[1]} }}\n",
        "lines.ndjson": f"{kept[0]}}}\n{kept[1]} }}\n",
        "list.json": f"[\n{kept[0]}}},\n{kept[1]}\n}}]",
    }.items():
        (tmp_path / name).write_text(text)
        distilkit.predict(str(classifier), data=tmp_path / name, text="message", output=tmp_path / f"{name}.out.jsonl")
        lines = (tmp_path / f"{name}.out.jsonl").read_text().splitlines()
        assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected
        assert all(json.loads(line)["probabilities"] for line in lines)


def test_json_lines_are_json_and_lines(classifier: Path, tmp_path: Path) -> None:
    """NaN and infinity, which JSON does not have, become null. No letter of a text ends a line."""
    row = '{"message": "return\u2028the\x85value", "n": NaN, "m": [-Infinity, 1]}\n'
    (tmp_path / "new.jsonl").write_text(row + row.replace("NaN", "1").replace("-Infinity", "0"), encoding="utf-8")
    distilkit.predict(str(classifier), data=tmp_path / "new.jsonl", text="message", output=tmp_path / "p.jsonl")
    strict = {"parse_constant": int}  # which fails for NaN
    rows = [json.loads(line, **strict) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    assert [(row["message"], row["n"], row["m"]) for row in rows] == [
        ("return\u2028the\x85value", None, [None, 1]),
        ("return\u2028the\x85value", 1, [0, 1]),
    ]


def test_images_beside_the_text_are_kept(classifier: Path, tmp_path: Path) -> None:
    """Bytes that are no text, as in columns of images, are written in base64."""
    rows = {"message": ["return the value"], "image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}], "raw": [b"\xff\xd8"]}
    pq.write_table(pa.table(rows), tmp_path / "new.parquet")
    for output in ("p.jsonl", "p.csv"):
        distilkit.predict(str(classifier), data=tmp_path / "new.parquet", text="message", output=tmp_path / output)
    row = json.loads((tmp_path / "p.jsonl").read_text())
    assert (row["image"], row["raw"]) == ({"bytes": "/9g=", "path": "a.jpg"}, "/9g=")
    with (tmp_path / "p.csv").open(newline="") as file:
        (cells,) = csv.DictReader(file)
    assert (json.loads(cells["image"]), cells["raw"]) == (row["image"], row["raw"])


def test_values_that_json_does_not_have(classifier: Path, tmp_path: Path) -> None:
    """Times, decimal numbers and structs of a parquet file are written as text."""
    table = pa.table(
        {
            "message": ["return the value"],
            "at": [datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)],
            "day": [date(2026, 1, 2)],
            "price": [Decimal("1.10")],
            "took": [timedelta(seconds=5)],
            "tags": [{"raw": b"abc", "day": date(2026, 1, 2)}],
        }
    )
    pq.write_table(table, tmp_path / "new.parquet")
    distilkit.predict(str(classifier), data=tmp_path / "new.parquet", text="message", output=tmp_path / "p.jsonl")
    row = json.loads((tmp_path / "p.jsonl").read_text())
    assert [row[name] for name in ("day", "price", "took", "tags")] == [
        "2026-01-02", "1.10", "0:00:05", {"raw": "abc", "day": "2026-01-02"},
    ]  # fmt: skip
    assert datetime.fromisoformat(row["at"]) == datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)
    distilkit.predict(str(classifier), data=tmp_path / "new.parquet", text="message", output=tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        (cells,) = csv.DictReader(file)
    assert json.loads(cells["tags"]) == row["tags"]


@pytest.mark.parametrize(
    ("column", "output"),
    [("probability_LABEL", "p.csv"), ("probabilities", "p.jsonl"), ("prediction", "p.csv"), ("probability", "p.jsonl")],
)
def test_no_column_is_overwritten(classifier: Path, tmp_path: Path, column: str, output: str) -> None:
    """Also if only a row beyond those that are read for a guess has it."""
    label = AutoModelForSequenceClassification.from_pretrained(classifier).config.id2label[0].removeprefix("LABEL_")
    column = column.replace("LABEL", label)
    rows = [{"message": "return the value"}] * 2100 + [{"message": "x", column: 1}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(distilkit.DistilkitError, match=rf"'{column}' in row 2101, which the output adds: rename it"):
        distilkit.predict(str(classifier), data=tmp_path / "new.jsonl", text="message", output=tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


def test_a_column_that_the_output_does_not_add_is_kept(
    make_checkpoint: Callable[..., Path], classifier: Path, tmp_path: Path
) -> None:
    """A table has a column per label, so `probabilities` is free; a regression adds `prediction` alone."""
    regression = make_checkpoint("bert", 2, AutoModelForSequenceClassification, num_labels=1)
    (tmp_path / "new.jsonl").write_text('{"message": "return the value", "probabilities": {"x": 1}}\n')
    for model in (classifier, regression):
        distilkit.predict(str(model), data=tmp_path / "new.jsonl", text="message", output=tmp_path / "p.csv")
        with (tmp_path / "p.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert json.loads(row["probabilities"]) == {"x": 1}
        assert "probability_x" not in row
        (tmp_path / "p.csv").unlink()


@pytest.mark.parametrize(("names", "tag"), [(("O", "B-X", "I-X"), "O"), (("NOUN", "VERB", "DET"), None)])
def test_a_warning_counts_words_beyond_the_model(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, ...],
    tag: str | None,
) -> None:
    """They get the tag O, or none if the tagger does not have it. Warnings count the words and name the length."""
    model = make_checkpoint("bert", 2, AutoModelForTokenClassification, id2label=dict(enumerate(names)))
    (tmp_path / "new.jsonl").write_text(json.dumps({"tokens": ["return"] * 200}) + "\n")
    given = {"data": tmp_path / "new.jsonl", "text": "tokens", "max_length": 4096}
    distilkit.predict(str(model), output=tmp_path / "p.jsonl", **given)
    predicted = json.loads((tmp_path / "p.jsonl").read_text())["prediction"]
    assert predicted[94:] == [tag] * 106  # 96 positions, two of them special tokens
    assert set(predicted[:94]) <= set(names)
    shown = capsys.readouterr().err
    assert "106 of 200 words" in shown
    assert "rows are cut to 96 tokens" in shown


def test_rows_in_another_script(classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that knows no token of the rows gives the same answer for each: a warning says why."""
    data = write_csv(tmp_path / "new.csv", ["пример", "текст"])
    distilkit.predict(str(classifier), data=data, text="message", output=tmp_path / "p.csv")
    assert "warning: only unknown tokens in the rows of" in capsys.readouterr().err


def test_shares_of_labels_that_differ_in_signs(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Both are _50K in the name of a metric: each has a share of its own."""
    names = {0: ">50K", 1: "<=50K"}
    model = make_checkpoint("bert", 2, AutoModelForSequenceClassification, id2label=names)
    done = distilkit.predict(str(model), data=write_csv(tmp_path / "new.csv", TEXTS), output=tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = [row["prediction"] for row in csv.DictReader(file)]
    assert done.metrics["share/_50K"] == rows.count("<=50K") / 4
    assert done.metrics["share/_50K-2"] == rows.count(">50K") / 4
