"""Students and teachers of the same small architectures."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, PreTrainedModel

from distilkit.encoders.layers import extract

Models = tuple[PreTrainedModel, PreTrainedModel]


@pytest.fixture(params=["bert", "roberta", "distilbert"])
def models(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> Models:
    """A student of layers 0 and 3 and its teacher of four layers, both without dropout."""
    teacher = AutoModelForMaskedLM.from_pretrained(make_checkpoint(request.param, 4)).eval()
    return extract(teacher, [0, 3]), teacher


@pytest.fixture
def berts(make_checkpoint: Callable[..., Path]) -> tuple[Models, Models]:
    """Two equal pairs of a student and a teacher without dropout; nothing in them is shared."""
    path = make_checkpoint("bert", 4)
    teacher, twin = (AutoModelForMaskedLM.from_pretrained(path).eval() for _ in range(2))
    return (extract(teacher, [0, 3]), teacher), (extract(teacher, [0, 3]), twin)
