"""Sizes of models and files, by hand arithmetic."""

from collections.abc import Callable
from pathlib import Path

from distilkit.encoders import checkpoint
from distilkit.encoders.layers import truncate_shared
from distilkit.encoders.sizes import compare_sizes, model_sizes, tensor_bytes, weights_bytes


def test_parameters_by_part_add_up(make_checkpoint: Callable[..., Path]) -> None:
    """The counts of a BERT follow its published layout: V·H + P·H + 2·H embeddings, layers, and an untied head."""
    teacher = checkpoint.open_as_saved(str(make_checkpoint("bert", 4)))
    found = compare_sizes(teacher, truncate_shared(teacher, [0]))
    vocabulary, width, positions, inner = 400, 32, 96, 64
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    head = width * width + width + 2 * width + vocabulary  # its output matrix is the table of word embeddings

    assert found["teacher/parameters_embeddings"] == (vocabulary + positions + 2) * width
    assert (found["teacher/parameters_layers"], found["student/parameters_layers"]) == (4 * layer, layer)
    assert found["student/parameters_head"] == head
    assert found["student/parameters_other"] == 2 * width
    assert found["student/parameters"] == (vocabulary + positions + 2) * width + layer + head + 2 * width
    assert (found["teacher/layers"], found["student/layers"]) == (4, 1)
    assert found["student/vocabulary"] == vocabulary


def test_tied_weights_count_once(make_checkpoint: Callable[..., Path]) -> None:
    """An untied output layer adds its matrix (V·H) and bias (V), of 4 bytes each, and nothing to the encoder."""
    tied, untied = (
        checkpoint.open_as_saved(str(make_checkpoint("bert", 1, tie_word_embeddings=tie))) for tie in (True, False)
    )
    output = 400 * 32 + 400
    sizes = [model_sizes(model, "not/local") for model in (tied, untied)]
    assert sizes[1]["parameters"] - sizes[0]["parameters"] == output
    assert sizes[1]["encoder_parameters"] == sizes[0]["encoder_parameters"]
    assert sizes[1]["bytes"] - sizes[0]["bytes"] == tensor_bytes(untied) - tensor_bytes(tied) == 4 * output


def test_bytes_are_those_of_the_weight_files_if_they_are_local(teacher: Path) -> None:
    """A directory has the size of its safetensors files; a hub id has none."""
    size = (teacher / "model.safetensors").stat().st_size
    model = checkpoint.open_as_saved(str(teacher))
    assert (weights_bytes(teacher), weights_bytes("some/model")) == (size, 0)
    assert model_sizes(model, str(teacher))["bytes"] == size
