"""Labels: inferred from rows, turned into targets, matched to a model's outputs by name."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
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
        (replace(CUSTOM, kind="regression"), "1_0", None),
        (replace(CUSTOM, kind="regression"), -1e18, -1e18),
        (replace(CUSTOM, kind="regression"), 1e39, None),
        (TAGS, ["c", "a"], [1.0, 0.0, 1.0]),
        (TAGS, [], [0.0, 0.0, 0.0]),
        (TAGS, ["a", "x"], None),
    ],
)
def test_label_to_target(task: Task, value: object, expected: float | list[float] | None) -> None:
    """Labels are names, or ids for built-in tasks. A list of labels becomes a multi-hot list."""
    assert labels.label_to_target(task, value) == expected


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        (["b", "a", "b"], "classification", ("a", "b")),
        ([10, 9, 10], "classification", ("9", "10")),
        ([1.0, 0.0], "classification", ("0", "1")),
        (["10", "9"], "classification", ("9", "10")),
        ([True, False], "classification", ("False", "True")),
        ([0.5, 1.0], "regression", ()),
        (["1_0", "1"], "classification", ("1", "1_0")),
        ([["x"], [], ["y", "x"]], "multi-label", ("x", "y")),
    ],
)
def test_infers_kind_and_names(values: list[object], kind: str, names: tuple[str, ...]) -> None:
    """Lists are multi-label, fractional numbers are regression, everything else is classification; names are sorted."""
    task = labels.infer_labels(CUSTOM, Dataset.from_dict({"kind": values}), "x")
    assert (task.kind, task.labels, task.metrics) == (kind, names, METRICS[kind])  # type: ignore[index]


def test_a_given_kind_overrides_the_inferred_one() -> None:
    """--kind regression fits whole numbers too. Labels in separate columns keep the order of the columns."""
    assert labels.infer_labels(CUSTOM, Dataset.from_dict({"kind": [1, 2, 5]}), "x", "regression").kind == "regression"
    rows = Dataset.from_dict({"z": [1], "a": [1], "z,a": [["a", "z"]]})
    assert labels.infer_labels(replace(CUSTOM, label="z,a"), rows, "x").labels == ("z", "a")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([1, 1], None, "--label kind has only one value, 1, in 'x'"),
        ([0.5, 1.0], "classification", "--label kind .*'x': use --kind regression"),
        (["a", "b"], "multi-label", "--kind multi-label in 'x'.*lists of names"),
        ([["a"], ["b"]], "classification", "--kind classification in 'x'.*one value per row"),
        ([[], []], None, "--label kind has no value in 'x'"),
        (list(range(50)), None, "--label kind .*50 rows: use --kind regression"),
    ],
)
def test_infer_labels_refuses(values: list[object], kind: Kind | None, message: str) -> None:
    """A single label, labels that do not fit --kind, and values that may be classes or numbers are refused."""
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
    """Outputs are matched to labels by name, in any order and case. Generic names keep their order."""
    assert labels.label_order(MNLI, Labelled(id2label), "m") == order  # type: ignore[arg-type]


@pytest.mark.parametrize("id2label", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "joy", 1: "anger", 2: "fear"}])
def test_label_order_refuses(id2label: dict[int, str]) -> None:
    """A model with other labels is refused; the error has its name and both lists of labels."""
    with pytest.raises(DistilkitError, match=r"'m' predicts .* mnli has entailment, neutral, contradiction"):
        labels.label_order(MNLI, Labelled(id2label), "m")  # type: ignore[arg-type]


def test_a_single_label_model_does_not_fit_a_multi_label_task() -> None:
    """It is refused even if the label names are the same."""
    single = Labelled({0: "a", 1: "b", 2: "c"}, "single_label_classification")
    with pytest.raises(DistilkitError, match=r"'m' was trained for classification, but data is multi-label"):
        labels.label_order(TAGS, single, "m")  # type: ignore[arg-type]


@pytest.mark.parametrize("problem_type", ["single_label", "Regression", ["regression"], 7])
def test_an_unknown_problem_type_is_refused(problem_type: Any) -> None:
    """The line lists the three that transformers knows; a head that is replaced anyway does not matter."""
    config = Labelled({0: "a", 1: "b", 2: "c"}, problem_type)
    listed = "single_label_classification, multi_label_classification, regression, or remove it"
    for kind in (None, "multi-label"):
        with pytest.raises(DistilkitError, match=listed) as caught:
            labels.label_order(labels.labels_from_model(CUSTOM, config, kind), config, "m")  # type: ignore[arg-type]
        assert repr(problem_type) in str(caught.value)
    assert labels.find_order(TAGS, config) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "kind", "names"),
    [
        (Labelled({0: "ham", 1: "spam"}), "classification", ("ham", "spam")),
        (Labelled({0: "a", 1: "b"}, "multi_label_classification"), "multi-label", ("a", "b")),
        (Labelled({0: "LABEL_0"}, "regression"), "regression", ()),
        (Labelled({0: "LABEL_0"}), "regression", ()),
    ],
)
def test_labels_from_model(config: Labelled, kind: str, names: tuple[str, ...]) -> None:
    """The config of a fine-tuned model gives the kind and labels of a custom task, so eval works without --kind."""
    task = labels.labels_from_model(CUSTOM, config)  # type: ignore[arg-type]
    assert (task.kind, task.labels, task.metrics) == (kind, names, METRICS[kind])  # type: ignore[index]


def test_kind_is_used_if_the_model_has_none() -> None:
    """--kind multi-label applies to a config without problem_type."""
    unset = Labelled({0: "a", 1: "b"})
    task = labels.labels_from_model(CUSTOM, unset, "multi-label")  # type: ignore[arg-type]
    assert (task.kind, task.labels) == ("multi-label", ("a", "b"))
    assert labels.label_order(task, unset, "m") == [0, 1]  # type: ignore[arg-type]


def test_labels_made_of_punctuation_are_distinguished() -> None:
    """Exact names match first, so "+" and "-" stay different although they normalise to the same name."""
    task = replace(CUSTOM, labels=("+", "-", "C#", "C++"))
    assert labels.label_order(task, Labelled({0: "C++", 1: "-", 2: "+", 3: "C#"}), "m") == [2, 1, 3, 0]  # type: ignore[arg-type]


def test_generic_names_stand_for_numbers() -> None:
    """LABEL_0 and LABEL_1, transformers' default names, match the labels 0 and 1 of a custom task."""
    task = labels.labels_from_model(CUSTOM, Labelled({0: "LABEL_0", 1: "LABEL_1"}))  # type: ignore[arg-type]
    assert task.labels == ("0", "1")
    assert labels.label_to_target(task, 1) == 1
    assert labels.label_order(task, Labelled({0: "LABEL_0", 1: "LABEL_1"}), "m") == [0, 1]  # type: ignore[arg-type]


def test_spaces_around_a_label_are_ignored() -> None:
    """CSV files often have a space after a comma."""
    task = labels.infer_labels(CUSTOM, Dataset.from_dict({CUSTOM.label: ["pos", " pos", "neg"]}), "rows")
    assert sorted(task.labels) == ["neg", "pos"]
    assert labels.label_to_target(task, " pos ") == labels.label_to_target(task, "pos")


def test_a_word_among_numbers_is_refused() -> None:
    """A nan in a CSV file of scores must not turn every score into a class."""
    rows = Dataset.from_dict({CUSTOM.label: ["1.5", "nan", "0.5"]})
    with pytest.raises(DistilkitError, match=r"--label kind .*'nan'.*--kind classification"):
        labels.infer_labels(CUSTOM, rows, "rows")
    assert labels.infer_labels(CUSTOM, rows, "rows", "classification").labels == ("0.5", "1.5", "nan")
