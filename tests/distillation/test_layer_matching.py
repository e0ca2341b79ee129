"""Matched layers against the hidden states and attention maps that transformers returns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from padded_text import padded_batch
from torch import Tensor
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, PreTrainedModel

from distilkit.distillation.layer_matching import map_layers
from distilkit.distillation.presets import WEIGHTS
from distilkit.distillation.text_objective import Distillation
from distilkit.errors import DistilkitError

Models = tuple[PreTrainedModel, PreTrainedModel]


def inside(model: PreTrainedModel, batch: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return a layer's hidden state, attention map, and queries, keys and values, as transformers returns them."""
    model.set_attn_implementation("eager")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    output = model.bert(**inputs, output_hidden_states=True, output_attentions=True)
    attention = model.bert.encoder.layer[layer].attention.self
    states = [part(output.hidden_states[layer]) for part in (attention.query, attention.key, attention.value)]
    return output.hidden_states[layer + 1], output.attentions[layer], states


def relation(mine: Tensor, other: Tensor, tokens: Tensor, heads: int) -> Tensor:
    """Compute MiniLMv2's equation 5 for queries, keys or values (B, T, H), one sequence and head at a time."""
    total = torch.zeros(())
    for row, present in enumerate(tokens):
        for head in range(heads):
            s, t = (states[row, present].chunk(heads, -1)[head] for states in (mine, other))
            log_s, log_t = (torch.log_softmax(x @ x.T / x.shape[-1] ** 0.5, -1) for x in (s, t))
            total = total + (log_t.exp() * (log_t - log_s)).sum()
    return total / heads / tokens.sum()


@pytest.mark.parametrize("name", ["hidden", "attention", "minilm"])
def test_layer_losses_equal_the_plain_ones(berts: tuple[Models, Models], name: str) -> None:
    """Losses and gradients equal those of the states that transformers returns; layers 0, 1 learn from 1, 3."""
    (student, teacher), (twin, other) = berts
    batch = padded_batch(3)
    tokens = batch["attention_mask"].bool()
    mine, theirs = (
        [inside(model, batch, layer) for layer in layers] for model, layers in ((twin, (0, 1)), (other, (1, 3)))
    )
    hidden = torch.stack([F.mse_loss(s[0][tokens], t[0][tokens]) for s, t in zip(mine, theirs, strict=True)]).mean()
    maps = torch.stack(
        [(t[1] * (t[1].clamp(min=1e-30).log() - s[1].clamp(min=1e-30).log())).sum(-1).mean(1)[tokens].mean()
         for s, t in zip(mine, theirs, strict=True)]
    ).mean()  # fmt: skip
    related = torch.stack([relation(s, t, tokens, 32) for s, t in zip(mine[1][2], theirs[1][2], strict=True)]).sum()
    expected = {"hidden": hidden, "attention": maps + hidden, "minilm": related}[name]

    found = Distillation(student, teacher, WEIGHTS[name], layer_map=[1, 3])(batch)["loss"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()
    expected.backward()
    compared = 0
    for (label, parameter), plainly in zip(student.named_parameters(), twin.parameters(), strict=True):
        if plainly.grad is not None and parameter.grad is not None:
            torch.testing.assert_close(
                parameter.grad, plainly.grad, rtol=1e-4, atol=1e-6, msg=lambda text, label=label: f"{label}: {text}"
            )
            compared += 1
    assert compared > 10


def test_hidden_states_by_cosine(berts: tuple[Models, Models]) -> None:
    """hidden_loss "cosine" is 1 minus the cosine of student and teacher state, a mean over tokens and layers."""
    (student, teacher), (twin, other) = berts
    batch = padded_batch(3)
    tokens = batch["attention_mask"].bool()
    pairs = [(inside(twin, batch, s)[0][tokens], inside(other, batch, t)[0][tokens]) for s, t in ((0, 1), (1, 3))]
    cosines = [(s * t).sum(-1) / (s.norm(dim=-1) * t.norm(dim=-1)) for s, t in pairs]

    found = Distillation(student, teacher, WEIGHTS["hidden"], layer_map=[1, 3], hidden_loss="cosine")(batch)["loss"]
    torch.testing.assert_close(found, torch.stack([1 - cosine.mean() for cosine in cosines]).mean())


def test_a_narrower_student_learns_a_projection(make_checkpoint: Callable[..., Path]) -> None:
    """If hidden sizes differ, `hidden` trains a projection; `relation` needs none."""
    teacher, student = (
        AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", layers, hidden_size=width)).eval()
        for layers, width in ((4, 32), (2, 16))
    )
    objective = Distillation(student, teacher, {"hidden": 1.0, "relation": 1.0}, layer_map=[1, 3])
    objective(padded_batch(0))["loss"].backward()

    assert objective.layer_matching.projection.weight.shape == (32, 16)
    assert objective.layer_matching.projection.weight.grad.abs().sum() > 0
    assert objective.layer_matching.relation_heads == 16


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, [2, 5, 8, 11]), ((10,), [2, 5, 8, 10]), ((0, 1, 2, 3), [0, 1, 2, 3])],
)
def test_layers_are_mapped_evenly_unless_given(given: tuple[int, ...] | None, expected: list[int]) -> None:
    """TinyBERT's even spread for 4 of 12 layers; a single given layer replaces the last one."""
    assert map_layers(given, *(bert(layers) for layers in (4, 12))) == expected


@pytest.mark.parametrize("given", [(12,), (1, 2), (0, 1, 2, -1)])
def test_a_layer_map_that_does_not_fit_is_refused(given: tuple[int, ...]) -> None:
    """A layer that does not exist or a wrong number of layers is an error that names the flag."""
    with pytest.raises(DistilkitError, match=f"--layer-map {','.join(map(str, given)) if len(given) > 1 else ''}"):
        map_layers(given, *(bert(layers) for layers in (4, 12)))


def bert(layers: int) -> PreTrainedModel:
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 30}
    return BertForMaskedLM(BertConfig(num_hidden_layers=layers, **shape))
