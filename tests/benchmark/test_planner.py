"""The shapes of students against the students that init writes, and what a teacher cannot have."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForTokenClassification

from distilkit.benchmark.planner import open_shape, prune_shape, random_contender, student_shapes
from distilkit.commands.init import init
from distilkit.encoders.sizes import shape_sizes
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.options.init import InitOptions


def options(teacher: Path, **given: object) -> BenchOptions:
    """Return the options of a plan."""
    return BenchOptions(models=(str(teacher),), plan=True, **given)


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("head", [None, AutoModelForTokenClassification])
def test_a_shape_has_the_sizes_of_the_student_that_init_writes(
    architecture: str, alone: bool, head: type | None, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """By part and in bytes, from a checkpoint and from its config.json alone; tied weights count once."""
    teacher = make_checkpoint("bert", 4, *([head] if head else []))
    done = init(InitOptions(teacher=str(teacher), output=tmp_path / "student", layers=3, architecture=architecture))
    if alone:
        (tmp_path / "config.json").write_bytes((teacher / "config.json").read_bytes())
        teacher = tmp_path
    given = options(teacher, layers=(3,), architecture=architecture)
    (shape,) = student_shapes(open_shape(str(teacher)), given)
    expected = {name.partition("/")[2]: size for name, size in done.metrics.items() if name.startswith("student/")}
    assert shape_sizes(shape) == expected
    assert shape_sizes(random_contender("3 layers", shape, given).model) == expected


def test_layers_by_default(teacher: Path) -> None:
    """A quarter, a third, half and two thirds of 4 layers are 1, 1, 2 and 2."""
    shapes = student_shapes(open_shape(str(teacher)), options(teacher))
    assert [shape_sizes(shape)["layers"] for shape in shapes] == [1, 2]


@pytest.mark.parametrize(("family", "padding"), [("bert", 0), ("roberta", 0)])
def test_a_smaller_vocabulary_keeps_the_padding_token(
    family: str, padding: int, make_checkpoint: Callable[..., Path]
) -> None:
    """Every per-token tensor has as many rows."""
    shape = prune_shape(open_shape(str(make_checkpoint(family, 2))), 50)
    assert shape_sizes(shape)["vocabulary"] == 50
    assert shape.get_input_embeddings().weight.shape[0] == 50
    assert shape.config.pad_token_id == padding


def test_what_a_teacher_cannot_have_is_refused(teacher: Path, make_checkpoint: Callable[..., Path]) -> None:
    """The flag to change is named."""
    shape = open_shape(str(teacher))
    with pytest.raises(DistilkitError, match="--layers 5 is more than the teacher has \\(4\\)"):
        list(student_shapes(shape, options(teacher, layers=(2, 5))))
    with pytest.raises(DistilkitError, match="--vocabulary 401 is more than the teacher has \\(400\\)"):
        prune_shape(shape, 401)
    with pytest.raises(DistilkitError, match="--vocabulary 1 leaves no token beside the padding token"):
        prune_shape(shape, 1)
    roberta = make_checkpoint("roberta", 2)
    with pytest.raises(DistilkitError, match="--architecture distilbert"):
        list(student_shapes(open_shape(str(roberta)), options(roberta, architecture="distilbert")))
