"""One validation of options, whoever gives them: the command line, a recipe, or Python."""

import math
from pathlib import Path
from typing import Any, get_args

import pytest

from distilkit.errors import DistilkitError, OptionError
from distilkit.options.bench import BenchOptions
from distilkit.options.declare import build, command_line
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.options.recipes import COMMANDS
from distilkit.options.spec import fields_of, flag, is_list, spec_of
from distilkit.options.tasks import ScoredTaskName, TaskName
from distilkit.options.training import TrainOptions
from distilkit.options.values import parse
from distilkit.tasks.catalogue import TASKS

REQUIRED: dict[str, Any] = {"student": "s", "corpus": "c", "output": Path("o")}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_takes_an_empty_value(command: str) -> None:
    """An unset shell variable must not train on the current folder."""
    for item, kind in fields_of(COMMANDS[command]):
        if kind is not bool:
            repeated = "tuple" in str(item.type) and not is_list(item, kind)
            empty: Any = [""] if repeated else ""
            with pytest.raises(OptionError):
                parse(item, kind, empty)


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_are_finite_and_bounded(command: str) -> None:
    """nan, infinities and numbers past the declared range are refused for every number."""
    for item, kind in fields_of(COMMANDS[command]):
        if kind in (int, float):
            spec = spec_of(item)
            beyond = [str(spec.min - 1)] if spec.min is not None else []
            beyond += [str(spec.max * 2 + 1)] if spec.max is not None else []
            for text in ["nan", "inf", "-inf", "two", *beyond]:
                with pytest.raises(OptionError, match=flag(item.name)):
                    parse(item, kind, text)


def test_python_values_are_checked_and_converted() -> None:
    """Text becomes a path, one value a list, a whole number a float; a wrong type is named with its flag."""
    options = InitOptions(teacher=Path("t"), output="out", keep=[0, 2])  # type: ignore[arg-type]
    assert (options.teacher, options.output, options.keep) == ("t", Path("out"), (0, 2))
    assert BenchOptions(models="m", batch_sizes=4).batch_sizes == (4,)  # type: ignore[arg-type]
    assert type(TrainOptions(lr=1).lr) is float
    for wrong in ({"batch_size": 2.5}, {"batch_size": True}, {"batch_size": None}, {"lr": math.nan}, {"resume": 1}):
        with pytest.raises(OptionError, match=flag(next(iter(wrong)))):
            TrainOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--batch-sizes"):
        BenchOptions(models=("m",), batch_sizes=())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"streaming": True}, "--streaming requires --steps"),
        ({"plan": True, "teacher_cache": "cache"}, "--plan and --teacher-cache"),
        ({"new_head": True}, "--new-head requires --objective mlm"),
        ({"teacher_cache": "cache"}, "--ce-positions masked"),
        ({"teacher_cache": "o/cache", "ce_positions": "masked"}, "inside the output directory"),
    ],
)
def test_rules_between_options_hold_for_every_caller(changes: dict[str, Any], words: str) -> None:
    """Python, recipes and the command line get the same line."""
    with pytest.raises(DistilkitError, match=words):
        DistillOptions(**REQUIRED, **changes)
    with pytest.raises(DistilkitError, match=words):
        build(DistillOptions, REQUIRED, changes)


def test_options_about_a_teacher_need_one() -> None:
    """So do baselines in eval."""
    with pytest.raises(DistilkitError, match="--temperature needs a teacher"):
        FinetuneOptions(model="m", output=Path("o"), task="rte", temperature=3.0)
    with pytest.raises(DistilkitError, match="--control requires a teacher"):
        EvalOptions(models=("m",), task="rte", control=("c",))


def test_tasks_are_named_once() -> None:
    """The names that --task takes are those of the catalogue, and glue and custom."""
    assert set(get_args(ScoredTaskName)) == {*TASKS, "glue", "custom"}
    assert set(get_args(ScoredTaskName)) - set(get_args(TaskName)) == {"sts", "retrieval"}  # scored without training


def test_a_class_gives_inherited_options_other_defaults() -> None:
    """finetune has its own defaults; distill keeps those of the training loop."""
    tuned = FinetuneOptions(model="m", output=Path("o"), task="rte")
    assert (tuned.lr, tuned.warmup, tuned.adam_epsilon) == (None, None, 1e-8)
    assert (TrainOptions().lr, TrainOptions().warmup, TrainOptions().adam_epsilon) == (5e-4, 0.05, 1e-6)


def test_a_command_line_spells_what_is_not_default() -> None:
    """And it parses back to the same options."""
    options = BenchOptions(models=("a b", "c"), batch_sizes=(1, 2), require=("x>=1", "y<2"), quiet=True)
    assert command_line("bench", options) == (
        "distilkit bench 'a b' c --batch-sizes 1,2 --require 'x>=1' --require 'y<2'"
    )
