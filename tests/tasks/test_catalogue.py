"""Tasks, the options that choose them, and their default settings."""

from pathlib import Path
from typing import Any

import pytest

from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.record import Record, record, write_biography
from distilkit.tasks.catalogue import (
    TASKS,
    resolve,
)
from distilkit.tasks.settings import SPAN_OPTIONS, TaskSettings, with_task_defaults, with_training_settings
from distilkit.wording import DISPLAY_NAMES

SST2, IMDB = (TASKS[name] for name in ("sst2", "imdb"))
CUSTOM = {"task": "custom", "text": ("title",), "label": "kind", "data": Path("data")}


def eval_options(**options: object) -> EvalOptions:
    return EvalOptions(models=("m",), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sst-2"}, "--task .*did you mean 'sst2'"),
        ({"task": "everything"}, "--task 'everything'"),
        ({**CUSTOM, "data": None}, "--task custom requires --data, --label .*--text"),
        ({**CUSTOM, "text": ("a", "b", "c")}, "--task custom requires --data, --label .*--text"),
        ({"task": "sst2", "label": "x"}, "--text, --label, --kind .*--task custom"),
        ({"task": "sst2", "kind": "regression"}, "--text, --label, --kind .*--task custom"),
    ],
)
def test_resolve_refuses(options: dict[str, object], message: str) -> None:
    """Unknown tasks and options that do not fit the task are refused with a hint."""
    with pytest.raises(DistilkitError, match=message):
        resolve(eval_options(**options))


def test_resolve_glue() -> None:
    """`glue` stands for the nine tasks of the benchmark."""
    expected = ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    assert [task.name for task in resolve(eval_options(task="glue"))] == expected


def test_every_metric_prefix_has_a_display_name() -> None:
    """Tables can name every task, MNLI's mismatched rows and the GLUE averages."""
    prefixes = {prefix for task in TASKS.values() for prefix, _ in task.splits}
    assert prefixes | {"custom", "glue", "glue_without_wnli"} == set(DISPLAY_NAMES)


def with_defaults(name: str, **options: Any) -> TaskSettings:
    return with_task_defaults(TASKS[name], FinetuneOptions(model="m", task=name, output=Path("o"), **options))


def trained_with(name: str, **options: Any) -> Record:
    return record("finetune", FinetuneOptions(model="m", task=name, output=Path("o"), **options), {})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sst2", (32, 2e-5, 3, 128)),  # run_glue.py's README
        ("mrpc", (32, 2e-5, 5, 128)),
        ("wnli", (32, 2e-5, 5, 128)),
        ("squad", (12, 3e-5, 2, 384)),  # run_qa.py's README
        ("squad_v2", (12, 3e-5, 2, 384)),
        ("imdb", (24, 2e-5, 4, 512)),  # Sun et al. 2019, section 5.2
    ],
)
def test_published_settings(name: str, settings: tuple[float, ...]) -> None:
    """Settings that are not given are those published for the task."""
    task, options = TASKS[name], with_defaults(name)
    assert (options.batch_size, task.lr, task.epochs, options.max_length) == settings
    assert options.long == "head"


def test_given_values_win_over_the_task() -> None:
    """A value that is given is used, even 0."""
    options = with_defaults("imdb", batch_size=2, long="windows")
    assert (options.batch_size, options.max_length, options.long) == (2, 512, "windows")
    assert with_defaults("squad", null_threshold=0.0, stride=0).stride == 0


def test_long_requires_one_text_column() -> None:
    """--long is refused for tasks with two text columns."""
    with pytest.raises(DistilkitError, match=r"--long windows .*mrpc"):
        with_defaults("mrpc", long="windows")


def test_scored_as_trained(tmp_path: Path) -> None:
    """A checkpoint is scored with the --max-length and --long of its training on that task, unless they are given."""
    write_biography(tmp_path, [trained_with("imdb", max_length=96, long="head-tail")])
    used = with_training_settings(IMDB, eval_options(task="imdb"), str(tmp_path))
    assert (used.max_length, used.long) == (96, "head-tail")
    used = with_training_settings(IMDB, eval_options(task="imdb", long="head", max_length=64), str(tmp_path))
    assert (used.max_length, used.long) == (64, "head")
    assert with_training_settings(SST2, eval_options(task="sst2"), str(tmp_path)).max_length == 128


def test_spans_are_scored_as_trained(tmp_path: Path) -> None:
    """SQuAD's options come from the training too, even 0; the rest are the official script's."""
    squad = TASKS["squad"]
    write_biography(tmp_path, [trained_with("squad", stride=0, n_best=7)])
    used = with_training_settings(squad, eval_options(task="squad", n_best=3), str(tmp_path))
    assert (used.stride, used.n_best, used.max_answer_length, used.null_threshold) == (0, 3, 30, 0.0)


@pytest.mark.parametrize(("max_length", "stride"), [(None, 128), (512, 128), (192, 64), (32, 10)])
def test_neighbouring_windows_share_a_third_at_most(max_length: int | None, stride: int) -> None:
    """The published 128 of 384 tokens; short windows share less, so that a question still fits. A given value wins."""
    assert with_defaults("squad", max_length=max_length).stride == stride
    assert with_defaults("squad", max_length=max_length, stride=7).stride == 7


@pytest.mark.parametrize("name", SPAN_OPTIONS)
def test_squad_options_are_refused_for_other_tasks(name: str) -> None:
    """An option that would have no effect is refused."""
    with pytest.raises(DistilkitError, match=f"--{name.replace('_', '-')} requires --task squad"):
        with_training_settings(SST2, eval_options(task="sst2", **{name: 5}), "m")
    assert getattr(with_training_settings(TASKS["squad"], eval_options(task="squad", **{name: 5}), "m"), name) == 5
