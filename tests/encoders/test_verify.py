"""Compare a student with its truncated teacher: equal models pass, every change is found."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedModel

from distilkit.encoders.layers import extract
from distilkit.encoders.verify import max_output_difference


@pytest.fixture
def teacher(make_checkpoint: Callable[..., Path]) -> PreTrainedModel:
    """A 4-layer BERT."""
    model: PreTrainedModel = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4)).eval()
    return model


def test_the_right_student_differs_by_nothing(teacher: PreTrainedModel) -> None:
    """The difference is 0; the second number is the largest output."""
    difference, scale = max_output_difference(teacher, extract(teacher, [0, 2]), [0, 2], None)

    assert difference == 0
    assert scale > 0.1


@pytest.mark.parametrize("name", ["encoder.layer.1.output.LayerNorm.bias", "embeddings.word_embeddings.weight"])
def test_a_changed_weight_shows(teacher: PreTrainedModel, name: str) -> None:
    """A changed weight is found, inside and outside of the layers."""
    student = extract(teacher, [0, 2])
    with torch.no_grad():
        student.bert.get_parameter(name).mul_(1.1)

    assert max_output_difference(teacher, student, [0, 2], None)[0] > 1e-3


def test_other_layers_and_not_a_number_show(teacher: PreTrainedModel) -> None:
    """A student with other layers, or with nan outputs, never counts as equal."""
    student = extract(teacher, [0, 3])
    assert max_output_difference(teacher, student, [0, 2], None)[0] > 1e-3
    with torch.no_grad():
        student.bert.embeddings.LayerNorm.bias.fill_(torch.nan)
    assert not max_output_difference(teacher, student, [0, 3], None)[0] <= 1e-5


def test_bare_encoders_are_compared_too(make_checkpoint: Callable[..., Path]) -> None:
    """Encoders without a head are compared by hidden states and pooler output."""
    teacher = AutoModel.from_pretrained(make_checkpoint("bert", 4, auto=AutoModel)).eval()
    student = extract(teacher, [1, 3])
    assert max_output_difference(teacher, student, [1, 3], None)[0] == 0
    with torch.no_grad():
        student.pooler.dense.bias.add_(0.1)
    assert max_output_difference(teacher, student, [1, 3], None)[0] > 1e-3


def test_nan_in_one_output_of_several_shows(make_checkpoint: Callable[..., Path]) -> None:
    """Equal hidden states and a nan pooler output do not count as equal."""
    teacher = AutoModel.from_pretrained(make_checkpoint("bert", 4, auto=AutoModel)).eval()
    student = extract(teacher, [1, 3])
    with torch.no_grad():
        student.pooler.dense.bias.fill_(torch.nan)
    assert not max_output_difference(teacher, student, [1, 3], None)[0] <= 1e-5
