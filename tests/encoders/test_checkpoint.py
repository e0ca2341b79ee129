"""Open and save checkpoints: all weights are there, or the error names what is missing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError


def test_pickled_weights_are_not_read(make_checkpoint: Callable[..., Path]) -> None:
    """A directory with only pytorch_model.bin is refused."""
    directory = make_checkpoint("bert", 1)
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(DistilkitError, match=r"--allow-pickle"):
        checkpoint.open_model(str(directory), "masked-lm")


@pytest.mark.parametrize("field", checkpoint.OUTPUTS)
def test_outputs_are_read_by_name_whatever_the_config_says(
    field: str, make_checkpoint: Callable[..., Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A config that asks for tuples, attentions or hidden states changes no output, and it is saved without that."""
    directory, ids = make_checkpoint("bert", 1), torch.tensor([[2, 9, 3]])
    expected = checkpoint.open_model(str(directory))(ids).logits
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {field: not checkpoint.OUTPUTS[field]}))
    model = checkpoint.open_model(str(directory))
    assert list(model(ids)) == ["logits"]
    assert torch.equal(model(ids).logits, expected)
    checkpoint.save(model, tokenizer, tmp_path)
    assert getattr(AutoConfig.from_pretrained(tmp_path), field) == checkpoint.OUTPUTS[field]


def test_a_missing_layer_is_damage_even_with_a_new_head(make_checkpoint: Callable[..., Path]) -> None:
    """Only a head may be newly initialised."""
    directory = make_checkpoint("bert", 2)
    weights = load_file(directory / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".layer.1.output.dense.weight" not in name}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DistilkitError, match=r"missing encoder weights.*layer\.1\.output\.dense\.weight"):
        checkpoint.open_model(str(directory), "masked-lm", new_head=True)


def test_damaged_weights_are_one_line(make_checkpoint: Callable[..., Path]) -> None:
    """A truncated weight file ends in one line."""
    directory = make_checkpoint("bert", 1)
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DistilkitError, match="cannot be read") as caught:
        checkpoint.open_model(str(directory), "masked-lm")

    assert "\n" not in str(caught.value)


def test_a_head_of_another_width_is_replaced_only_when_asked(make_checkpoint: Callable[..., Path]) -> None:
    """A 2-label classifier becomes a 3-label one with the same encoder."""
    directory = make_checkpoint("bert", 1, auto=AutoModelForSequenceClassification)
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    with pytest.raises(DistilkitError):
        checkpoint.open_model(str(directory), "sequence-classification", **labels)
    model = checkpoint.open_model(str(directory), "sequence-classification", new_head=True, **labels)

    assert model.classifier.out_features == 3
    assert torch.equal(
        model.bert.embeddings.word_embeddings.weight,
        load_file(directory / "model.safetensors")["bert.embeddings.word_embeddings.weight"],
    )


def test_saving_goes_through_a_temporary_name(
    make_checkpoint: Callable[..., Path], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A failed save leaves no model.safetensors."""
    model = checkpoint.open_model(str(make_checkpoint("bert", 1)), "masked-lm")

    class Broken:
        def save_pretrained(self, directory: Path) -> None:
            assert (Path(directory) / "model.safetensors").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(model, Broken(), tmp_path)  # type: ignore[arg-type]

    assert not (tmp_path / "model.safetensors").exists()
    checkpoint.save(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / ".partial").exists()


def test_a_tokenizer_with_tokens_that_the_model_lacks_is_refused(
    make_checkpoint: Callable[..., Path], tokenizer: PreTrainedTokenizerFast
) -> None:
    """It is refused on opening, not at the first text with such a token."""
    directory = make_checkpoint("bert", 1)
    model = checkpoint.open_as_saved(str(directory))
    assert len(checkpoint.open_tokenizer(str(directory), model)) == len(tokenizer)
    model.resize_token_embeddings(len(tokenizer) - 3)
    with pytest.raises(DistilkitError, match=f"{directory}.* {len(tokenizer)} .* {len(tokenizer) - 3} "):
        checkpoint.open_tokenizer(str(directory), model)
