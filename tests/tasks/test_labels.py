"""Labels: learnt from rows, turned into targets, and matched to a model's outputs by name."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from datasets import Dataset

from distilkit.errors import DistilkitError
from distilkit.options.tasks import EvalOptions
from distilkit.tasks import labels
from distilkit.tasks.catalogue import METRICS, TASKS, Kind, Task, resolve

SST2, STSB, MNLI = (TASKS[name] for name in ("sst2", "stsb", "mnli"))
[CUSTOM] = resolve(EvalOptions(models=("m",), task="custom", text=("title",), label="kind", data=Path("data")))
TAGS = replace(CUSTOM, kind="multi-label", labels=("a", "b", "c"))


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
        (replace(CUSTOM, kind="regression"), "-71.5", -71.5),
        (replace(CUSTOM, kind="regression"), float("nan"), None),
        (TAGS, ["c", "a"], [1.0, 0.0, 1.0]),
        (TAGS, [], [0.0, 0.0, 0.0]),
        (TAGS, ["a", "x"], None),
    ],
)
def test_target(task: Task, value: object, expected: float | list[float] | None) -> None:
    """A label may be a name or a place, a custom task's a name only; several become a 1 each."""
    assert labels.label_to_target(task, value) == expected


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        (["b", "a", "b"], "classification", ("a", "b")),
        ([10, 9, 10], "classification", ("9", "10")),
        ([1.0, 0.0], "classification", ("0", "1")),
        (["10", "9"], "classification", ("10", "9")),
        ([True, False], "classification", ("False", "True")),
        ([0.5, 1.0], "regression", ()),
        ([["x"], [], ["y", "x"]], "multi-label", ("x", "y")),
    ],
)
def test_learn_finds_kind_and_names(values: list[object], kind: str, names: tuple[str, ...]) -> None:
    """Lists are multi-label, fractions are numbers, all else are classes: numbers in order, strings in order."""
    task = labels.infer_labels(CUSTOM, Dataset.from_dict({"kind": values}), "x")
    assert (task.kind, task.labels, task.metrics) == (kind, names, METRICS[kind])  # type: ignore[index]


def test_learn_does_as_it_is_told() -> None:
    """Whole numbers are a regression where --kind says so; labels in a column each keep the columns' order."""
    assert labels.infer_labels(CUSTOM, Dataset.from_dict({"kind": [1, 2, 5]}), "x", "regression").kind == "regression"
    rows = Dataset.from_dict({"z": [1], "a": [1], "z,a": [["a", "z"]]})
    assert labels.infer_labels(replace(CUSTOM, label="z,a"), rows, "x").labels == ("z", "a")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([1, 1], None, "the one value 1"),
        ([0.5, 1.0], "classification", "fractions in 'x': give --kind regression"),
        (["a", "b"], "multi-label", "does not fit --kind multi-label in 'x': it needs lists of names"),
        ([["a"], ["b"]], "classification", "does not fit --kind classification.*one value a row"),
        ([[], []], None, "the one value nothing"),
        (list(range(50)), None, "50 different values in 50 rows: give --kind regression where"),
    ],
)
def test_learn_refuses(values: list[object], kind: Kind | None, message: str) -> None:
    """One label, labels of another kind than was said, and what may be classes or numbers are refused in one line."""
    with pytest.raises(DistilkitError, match=message):
        labels.infer_labels(CUSTOM, Dataset.from_dict({"kind": values}), "x", kind)


@dataclass
class Labelled:
    id2label: dict[int, str]
    problem_type: str | None = None


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
    assert labels.label_order(MNLI, Labelled(id2label), "m") == order  # type: ignore[arg-type]


@pytest.mark.parametrize("id2label", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "joy", 1: "anger", 2: "fear"}])
def test_label_order_refuses(id2label: dict[int, str]) -> None:
    """A model with other labels is refused by name."""
    with pytest.raises(DistilkitError, match=r"'m' predicts .*, but mnli has entailment, neutral, contradiction"):
        labels.label_order(MNLI, Labelled(id2label), "m")  # type: ignore[arg-type]


def test_a_model_for_one_label_is_no_model_for_several() -> None:
    """The same names are not enough: a model that chooses one says nothing of several at once."""
    single = Labelled({0: "a", 1: "b", 2: "c"}, "single_label_classification")
    with pytest.raises(DistilkitError, match="'m' was trained for single label classification, but custom is multi"):
        labels.label_order(TAGS, single, "m")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "kind", "names"),
    [
        (Labelled({0: "ham", 1: "spam"}), "classification", ("ham", "spam")),
        (Labelled({0: "a", 1: "b"}, "multi_label_classification"), "multi-label", ("a", "b")),
        (Labelled({0: "LABEL_0"}, "regression"), "regression", ()),
        (Labelled({0: "LABEL_0"}), "regression", ()),
    ],
)
def test_of_model(config: Labelled, kind: str, names: tuple[str, ...]) -> None:
    """A trained model's config says what a custom task is, so that eval needs no --kind."""
    task = labels.labels_from_model(CUSTOM, config)  # type: ignore[arg-type]
    assert (task.kind, task.labels, task.metrics) == (kind, names, METRICS[kind])  # type: ignore[index]


def test_a_given_kind_is_taken() -> None:
    """A config that says nothing of several labels at once has --kind say it."""
    silent = Labelled({0: "a", 1: "b"})
    task = labels.labels_from_model(CUSTOM, silent, "multi-label")  # type: ignore[arg-type]
    assert (task.kind, task.labels) == ("multi-label", ("a", "b"))
    assert labels.label_order(task, silent, "m") == [0, 1]  # type: ignore[arg-type]


def test_labels_of_signs_alone_are_told_apart() -> None:
    """Where names are the same to the letter, what a plainer spelling would make of them doesn't matter."""
    task = replace(CUSTOM, labels=("+", "-", "C#", "C++"))
    assert labels.label_order(task, Labelled({0: "C++", 1: "-", 2: "+", 3: "C#"}), "m") == [2, 1, 3, 0]  # type: ignore[arg-type]


def test_a_model_without_names_has_numbers_for_labels() -> None:
    """LABEL_0 and LABEL_1, as transformers calls what nobody named, are a custom task's 0 and 1."""
    task = labels.labels_from_model(CUSTOM, Labelled({0: "LABEL_0", 1: "LABEL_1"}))  # type: ignore[arg-type]
    assert task.labels == ("0", "1")
    assert labels.label_to_target(task, 1) == 1
    assert labels.label_order(task, Labelled({0: "LABEL_0", 1: "LABEL_1"}), "m") == [0, 1]  # type: ignore[arg-type]


def test_blanks_around_a_label_are_no_part_of_it() -> None:
    """Such as a CSV file has behind its commas."""
    task = labels.infer_labels(CUSTOM, Dataset.from_dict({CUSTOM.label: ["pos", " pos", "neg"]}), "rows")
    assert sorted(task.labels) == ["neg", "pos"]
    assert labels.label_to_target(task, " pos ") == labels.label_to_target(task, "pos")


def test_a_word_among_numbers_is_named() -> None:
    """As nan in a CSV file of scores, which would make a class of every score."""
    rows = Dataset.from_dict({CUSTOM.label: ["1.5", "nan", "0.5"]})
    with pytest.raises(DistilkitError, match="holds numbers, but 'nan' too: mend that row"):
        labels.infer_labels(CUSTOM, rows, "rows")
    assert labels.infer_labels(CUSTOM, rows, "rows", "classification").labels == ("0.5", "1.5", "nan")
