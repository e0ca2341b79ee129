"""Task rows, reading them from every format, and what is refused."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from distilkit import checkpoint, task_data, tasks
from distilkit.config import EvalConfig
from distilkit.errors import DistilkitError

SST2, STSB, MNLI, IMDB = (tasks.TASKS[name] for name in ("sst2", "stsb", "mnli", "imdb"))
CUSTOM = {"task": "custom", "text": ("title",), "label": "kind", "data": Path("data")}
ROWS = [{"sentence": 'a "good', "label": 1}, {"sentence": "NA", "label": 0}, {"sentence": "so, so", "label": 1}]


def config(**options: object) -> EvalConfig:
    return EvalConfig(models=("m",), **options)  # type: ignore[arg-type]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def write_as(path: Path, ending: str) -> None:
    """Write ROWS in the format that a file's ending names."""
    table = [("sentence", "label"), *((row["sentence"], row["label"]) for row in ROWS)]
    texts = {
        "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
        "json": json.dumps(ROWS),
        "tsv": "".join(f"{sentence}\t{label}\n" for sentence, label in table),
        "csv": 'sentence,label\n"a ""good",1\nNA,0\n"so, so",1\n',
    }
    if ending == "parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    elif ending.endswith(".gz"):
        path.write_bytes(gzip.compress(texts[ending.removesuffix(".gz")].encode()))
    else:
        path.write_text(texts[ending], encoding="utf-8")


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "tsv", "tsv.gz", "csv", "parquet"])
def test_reads_every_format(tmp_path: Path, ending: str) -> None:
    """The same rows come out of every format: stray quotes in TSV and the word NA are text."""
    write_as(tmp_path / f"train.{ending}", ending)
    assert task_data.read(SST2, tmp_path, "train").to_list() == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.jsonl' is empty"),
        (b"\n", "train.jsonl' is empty"),
        (b'{"sentence": "a"}\n', "no column 'label'.*it has sentence.*--task sst2"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": \n', "train.jsonl' cannot be read"),
        (b'{"sentence": "\xff\xfe", "label": 1}\n', "train.jsonl' cannot be read.*UTF8"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": "b", "label": 2}\n', "label 2 in row 2.*negative, positive"),
        (b'{"sentence": "a", "label": -1}\n', "label -1 in row 1.*test split"),
        (b'{"sentence": "a", "label": "good"}\n', "label 'good' in row 1"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": null, "label": 1}\n', "no 'sentence' in row 2"),
        (b'{"sentence": ["a"], "label": 1}\n', "column 'sentence'.*holds more than text"),
    ],
)
def test_refuses_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that can't be used is refused in one line that names it, the column and the row."""
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(DistilkitError, match=message) as caught:
        task_data.read(SST2, tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("train.jsonl.gz", b"plain text"), ("train.parquet", b"plain text"), ("train.csv", b"sentence,label\n")],
)
def test_refuses_files_that_are_not_what_they_say(tmp_path: Path, name: str, content: bytes) -> None:
    """A file that isn't the format its name says, or has a header only, is refused by name."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilkitError, match=f"{name}' (cannot be read|has no rows)"):
        task_data.read(SST2, tmp_path, "train")


def test_refuses_missing_and_ambiguous_files(tmp_path: Path) -> None:
    """No folder, no file of the split, and two of them: each error names --data."""
    with pytest.raises(DistilkitError, match=r"no folder '.*nowhere'.*--data"):
        task_data.read(SST2, tmp_path / "nowhere", "train")
    with pytest.raises(DistilkitError, match=r"no train\.\{jsonl.*--data"):
        task_data.read(SST2, tmp_path, "train")
    write_as(tmp_path / "train.tsv", "tsv")
    write_as(tmp_path / "train.jsonl", "jsonl")
    with pytest.raises(DistilkitError, match=r"several files for train \(train.jsonl, train.tsv\)"):
        task_data.read(SST2, tmp_path, "train")


def test_without_the_hub_the_error_names_data() -> None:
    """Where the hub is out of reach, one line says which flag reads a folder."""
    with pytest.raises(DistilkitError, match=r"nyu-mll/glue.*--data"):
        task_data.read(SST2, None, "train")


def test_validation_splits(tmp_path: Path) -> None:
    """MNLI is scored on matched rows and, where they are there, on mismatched ones; IMDb falls back to test."""
    pair = {"premise": "a", "hypothesis": "b", "label": 2}
    write_jsonl(tmp_path / "mnli" / "validation_matched.jsonl", [pair])
    assert list(task_data.read_validation(MNLI, tmp_path / "mnli")) == ["mnli"]
    write_jsonl(tmp_path / "mnli" / "validation_mismatched.jsonl", [pair, pair])
    found = task_data.read_validation(MNLI, tmp_path / "mnli")
    assert {prefix: len(rows) for prefix, rows in found.items()} == {"mnli": 1, "mnli_mismatched": 2}
    review = {"text": "fine", "label": 1}
    write_jsonl(tmp_path / "imdb" / "test.jsonl", [review])
    assert len(task_data.read_validation(IMDB, tmp_path / "imdb")["imdb"]) == 1
    write_jsonl(tmp_path / "imdb" / "validation.jsonl", [review, review])
    assert len(task_data.read_validation(IMDB, tmp_path / "imdb")["imdb"]) == 2


@pytest.mark.parametrize("name", ["dev-v1.1.json", "dev-v1.1.json.gz", "validation.json"])
def test_reads_nested_squad(tmp_path: Path, name: str) -> None:
    """SQuAD's original JSON is read under its own name or ours, beside a 2.0 file that is another task's."""
    qas = [{"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}]}]
    article = {"title": "T", "paragraphs": [{"context": "Ann left.", "qas": qas}]}
    text = json.dumps({"data": [article], "version": "1.1"})
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    (tmp_path / "dev-v2.0.json").write_text("not read", encoding="utf-8")
    rows = task_data.read_validation(tasks.TASKS["squad"], tmp_path)["squad"]
    assert rows.to_list()[0]["answers"] == {"text": ["Ann"], "answer_start": [0]}


def test_refuses_a_squad_file_of_another_layout(tmp_path: Path) -> None:
    """Nested JSON that lacks a part is refused by name, with the part."""
    (tmp_path / "train.json").write_text('{"data": [{"title": "T"}]}', encoding="utf-8")
    with pytest.raises(DistilkitError, match=r"train.json' cannot be read \(not SQuAD's layout, KeyError\('paragr"):
        task_data.read(tasks.TASKS["squad"], tmp_path, "train")


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        (SST2, 1, 1),
        (SST2, "1", 1),
        (SST2, 1.0, 1),
        (SST2, "positive", 1),
        (SST2, 2, None),
        (SST2, -1, None),
        (STSB, "2.5", 2.5),
        (STSB, 5.1, None),
        (STSB, "x", None),
        (replace(SST2, name="custom", labels=("3", "7")), 7, 1),
        (replace(SST2, name="custom", labels=("3", "7")), 1, None),
    ],
)
def test_target(task: tasks.Task, value: object, expected: float | None) -> None:
    """A label may be a name or a place, a custom task's a name only; what is neither has no target."""
    assert tasks.target(task, value) == expected


@pytest.mark.parametrize(
    ("values", "labels"),
    [(["b", "a", "b"], ("a", "b")), ([10, 9, 10], ("9", "10")), ([1.0, 0.0], ("0", "1")), (["10", "9"], ("10", "9"))],
)
def test_learn_labels(values: list[object], labels: tuple[str, ...]) -> None:
    """A custom task takes its labels from the training rows: numbers in order, strings in order."""
    [task] = tasks.resolve(config(**CUSTOM))
    assert tasks.learn_labels(task, Dataset.from_dict({"kind": values}), "x").labels == labels


@pytest.mark.parametrize(("values", "message"), [([1, 1], "the one value 1"), ([0.5, 1.0], "fractions")])
def test_learn_labels_refuses(values: list[object], message: str) -> None:
    """One label, or fractions, make no classes."""
    [task] = tasks.resolve(config(**CUSTOM))
    with pytest.raises(DistilkitError, match=message):
        tasks.learn_labels(task, Dataset.from_dict({"kind": values}), "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sst-2"}, "no task 'sst-2': did you mean 'sst2'"),
        ({"task": "everything"}, "no task 'everything': there are"),
        ({**CUSTOM, "data": None}, "--task custom needs --data, --label and one or two --text"),
        ({**CUSTOM, "text": ("a", "b", "c")}, "--task custom needs"),
        ({"task": "sst2", "label": "x"}, "--text and --label are for --task custom"),
    ],
)
def test_resolve_refuses(options: dict[str, object], message: str) -> None:
    """An unknown task and options that do not go together are refused, with what to type instead."""
    with pytest.raises(DistilkitError, match=message):
        tasks.resolve(config(**options))


def test_resolve_glue() -> None:
    """`glue` is the nine tasks of the benchmark."""
    expected = ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    assert [task.name for task in tasks.resolve(config(task="glue"))] == expected


@dataclass
class Labelled:
    id2label: dict[int, str]


@pytest.mark.parametrize(
    ("id2label", "order"),
    [
        ({0: "entailment", 1: "neutral", 2: "contradiction"}, [0, 1, 2]),
        ({0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}, [2, 1, 0]),
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, [0, 1, 2]),
    ],
)
def test_label_order(id2label: dict[int, str], order: list[int]) -> None:
    """Outputs are matched to labels by name, whatever their order; nameless ones keep theirs."""
    assert tasks.label_order(MNLI, Labelled(id2label), "m") == order  # type: ignore[arg-type]


@pytest.mark.parametrize("id2label", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "joy", 1: "anger", 2: "fear"}])
def test_label_order_refuses(id2label: dict[int, str]) -> None:
    """A model with other labels is refused by name."""
    with pytest.raises(DistilkitError, match=r"'m' predicts .*, but mnli has entailment, neutral, contradiction"):
        tasks.label_order(MNLI, Labelled(id2label), "m")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "inputs", "positions"),
    [
        (BertConfig(type_vocab_size=2), tasks.INPUTS, 40),
        (RobertaConfig(type_vocab_size=1, pad_token_id=1), tasks.INPUTS[:2], 38),
        (DistilBertConfig(), tasks.INPUTS[:2], 40),
    ],
)
def test_models_take_what_they_can(family: object, inputs: tuple[str, ...], positions: int) -> None:
    """Segments go to models that tell two apart, and RoBERTa's first positions are taken by padding."""
    small = {"vocab_size": 50, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    for name, value in (small | {"max_position_embeddings": 40}).items():
        setattr(family, name, value)
    model = AutoModelForSequenceClassification.from_config(family)
    assert tasks.input_names(model) == inputs
    assert checkpoint.max_tokens(model) == positions
    assert tasks.window_length(SST2, config(task="sst2"), model) == positions
    assert tasks.window_length(SST2, config(task="sst2", max_length=16), model) == 16


def test_positions_are_enough(make_checkpoint: Callable[..., Path]) -> None:
    """A RoBERTa takes exactly as many tokens as it is said to have positions for."""
    directory = make_checkpoint("roberta", 1, AutoModelForSequenceClassification)
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    limit = checkpoint.max_tokens(model)
    assert limit == 97
    assert model(input_ids=torch.full((1, limit), 7)).logits.shape == (1, 2)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 7))


def test_encode_and_collate(tokenizer: PreTrainedTokenizerFast) -> None:
    """Pairs become one sequence with two segments, are cut to length, padded on the right, with their targets."""
    rows = [
        {"premise": "a value", "hypothesis": "is returned", "label": "neutral"},
        {"premise": "the value " * 20, "hypothesis": "the", "label": "contradiction"},
    ]
    short, long = tasks.encode(Dataset.from_list(rows), MNLI, tokenizer, tasks.INPUTS, 16)
    expected = tokenizer("a value", "is returned")["input_ids"]
    assert short["input_ids"] == expected
    assert len(long["input_ids"]) == 16
    batch = tasks.collator(tokenizer)([short, long], torch.Generator())
    pads = 16 - len(expected)
    assert batch["input_ids"][0].tolist() == expected + [0] * pads
    assert batch["attention_mask"][0].tolist() == [1] * len(expected) + [0] * pads
    assert batch["token_type_ids"][0].tolist() == short["token_type_ids"] + [0] * pads
    assert set(short["token_type_ids"]) == {0, 1}
    assert batch["labels"].tolist() == [1, 2]
