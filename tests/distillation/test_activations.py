"""Recording of hidden states and attention."""

from pathlib import Path

import pytest
import torch
from padded_text import padded_batch
from transformers import AlbertConfig, AlbertForMaskedLM, PreTrainedModel

from distilkit.distillation.activations import record_activations, show_attention
from distilkit.distillation.presets import WEIGHTS
from distilkit.distillation.text_objective import Distillation
from distilkit.errors import DistilkitError

Models = tuple[PreTrainedModel, PreTrainedModel]


@pytest.mark.parametrize("name", ["hidden", "minilm"])
def test_shared_layers_are_refused(name: str) -> None:
    """ALBERT's layers are one module, so their activations cannot be told apart; the message gives a remedy."""
    shape = {"vocab_size": 400, "embedding_size": 16, "hidden_size": 32, "num_attention_heads": 4}
    teacher, student = (AlbertForMaskedLM(AlbertConfig(num_hidden_layers=n, **shape)).eval() for n in (4, 2))
    with pytest.raises(DistilkitError, match=r"AlbertForMaskedLM.*--alpha-hidden.*--objective"):
        Distillation(student, teacher, WEIGHTS[name], layer_map=[1, 3])(padded_batch(0))


def test_a_saved_config_does_not_name_our_attention(berts: tuple[Models, Models], tmp_path: Path) -> None:
    """The config of a student that learned from relations opens in other tools."""
    (student, teacher), _ = berts
    Distillation(student, teacher, WEIGHTS["minilm"], layer_map=[1, 3])
    student.save_pretrained(tmp_path)

    assert "distilkit" not in (tmp_path / "config.json").read_text()


def test_only_the_given_layers_are_recorded(berts: tuple[Models, Models]) -> None:
    """Hidden states equal those of transformers, and nothing is recorded outside the context manager."""
    (_, teacher), _ = berts
    show_attention(teacher)
    batch = padded_batch(0)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), record_activations(teacher, [1], [2, 3]) as recorded:
        states = teacher(**inputs, output_hidden_states=True).hidden_states
    before = recorded.attention[2]
    with torch.no_grad():
        teacher(**{name: tensor.flip(0) for name, tensor in inputs.items()})

    assert set(recorded.hidden) == {1}
    assert set(recorded.attention) == {2, 3}
    torch.testing.assert_close(recorded.hidden[1], states[2].flatten(0, 1))
    assert recorded.attention[2] is before
