"""An exported model that its runtime cannot run is one line."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig

from distilkit.errors import DistilkitError
from distilkit.runtimes.exported import RuntimeModel


class Program(SimpleNamespace):
    """A program that gives its input back, but fails on rows of more than eight tokens."""

    config = BertConfig()

    def __call__(self, **inputs: Any) -> Any:
        if inputs["input_ids"].shape[1] > 8:
            raise RuntimeError("execute() failed with error 0x1")
        return inputs["input_ids"]


@pytest.mark.parametrize(
    ("rows", "tokens", "words"),
    [(2, 8, None), (2, 9, r"cannot be run \(execute\(\) failed.*another --format"), (3, 8, "at most 2, not 3")],
)
def test_what_a_program_cannot_do_is_one_line(rows: int, tokens: int, words: str | None) -> None:
    """Inputs that it takes come through; too many rows, and what its runtime raises, are errors of the user's."""
    model, inputs = RuntimeModel(Program(), max_batch=2), torch.ones(rows, tokens, dtype=torch.long)  # type: ignore[arg-type]
    if words is None:
        assert model(inputs, inputs).equal(inputs)
        return
    with pytest.raises(DistilkitError, match=words):
        model(inputs, inputs)
