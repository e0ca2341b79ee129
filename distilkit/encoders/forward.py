"""Run a model, or only the part that is needed: the encoder alone, or the head at some tokens.

This is done by hooks on modules that every architecture has, so nothing here depends on the model family.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel


def mean_over_windows(logits: Tensor, owners: Tensor, rows: int) -> Tensor:
    """Average logits (W, C) over the windows of each row; `owners` (W,) is the row of each. Returns (rows, C)."""
    sums = logits.new_zeros(rows, logits.shape[1]).index_add(0, owners, logits)
    return sums / owners.bincount(minlength=rows).unsqueeze(1)


class Head(NamedTuple):
    """The inputs of a vocabulary head's last layer: features (R, H), weight (V, H), bias (V,) or none."""

    features: Tensor
    weight: Tensor
    bias: Tensor | None


Batch = dict[str, Tensor]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Inputs that some models require, by name, with a default (X-MOD: the language of each sequence; here the first).
REQUIRED_INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "lang_ids": lambda ids: torch.zeros(len(ids), dtype=torch.long, device=ids.device)
}


def select_rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    """Return the selected rows of a tensor, or all of them for None."""
    return tensor if rows is None else tensor[rows]


def masked_lm_logits(model: PreTrainedModel, inputs: Batch, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a masked-LM model, with its vocabulary head at some rows of the flattened batch only (None: all).

    Returns the last hidden state at every row (B·T, H) and the logits at the selected rows (R, V). A hook narrows the
    encoder's output before it reaches the head, so this works for any masked-LM class.
    """
    states: list[Tensor] = []

    def narrow(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state.flatten(0, 1)  # (B·T, H)
        states.append(hidden)
        output.last_hidden_state = select_rows(hidden, rows).unsqueeze(0)  # (1, R, H)
        return output

    hook = model.base_model.register_forward_hook(narrow)
    try:
        logits = model(**inputs, **required_inputs(model, inputs["input_ids"])).logits.squeeze(0)  # (R, V)
    finally:
        hook.remove()
    return states[0], logits


@torch.no_grad()
def masked_token_logits(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Run a masked-LM model on a masked batch; return the logits (M, V) in fp32 and labels (M,) at its masked tokens.

    The batch is moved to the model's device.
    """
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in batch.items()}
    labels = inputs.pop("labels").flatten()
    masked = (labels != -100).nonzero().squeeze(-1)
    return masked_lm_logits(model, inputs, masked)[1].float(), labels[masked]


def head_inputs(model: PreTrainedModel, inputs: Batch, rows: Tensor | None) -> tuple[Tensor, Head]:
    """Run a masked-LM model up to the last layer of its vocabulary head, at some rows only.

    Returns the last hidden state at every row (B·T, H), and the inputs of the head's last layer at the selected rows.
    """
    last = cast(nn.Linear, model.get_output_embeddings())
    features: list[Tensor] = []

    def divert(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features.append(args[0].squeeze(0))  # (R, H)
        return (args[0][:, :1],)

    hook = last.register_forward_pre_hook(divert)
    try:
        hidden, _ = masked_lm_logits(model, inputs, rows)
    finally:
        hook.remove()
    return hidden, Head(features[0], last.weight, last.bias)


@torch.no_grad()
def has_linear_output(model: PreTrainedModel) -> bool:
    """Say whether head_inputs() determines the logits. MobileBERT's and ESM's heads add something to them."""
    training, device = model.training, next(model.parameters()).device
    inputs = {"input_ids": torch.arange(8, device=device).unsqueeze(0)}
    model.eval()
    try:
        features, weight, bias = head_inputs(model, inputs, None)[1]
        same = torch.allclose(F.linear(features, weight, bias), masked_lm_logits(model, inputs, None)[1], atol=1e-4)
    except (AttributeError, IndexError):  # no last layer, or it is not called
        same = False
    model.train(training)
    return same


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """List the input tensors of a model; token_type_ids only if it distinguishes segments.

    The model's signature decides, since transformers 5's generic tokenizer class does not list token_type_ids.
    """
    names = set(inspect.signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", None) in (None, 0, 1):
        names -= {"token_type_ids"}
    return tuple(name for name in INPUTS if name in names)


def required_inputs(model: PreTrainedModel, input_ids: Tensor) -> Batch:
    """Return the inputs that a model requires besides token ids (B, T), with default values."""
    if getattr(model.config, "default_language", "") is not None:
        return {}
    accepted = {name for part in (model, model.base_model) for name in inspect.signature(part.forward).parameters}
    return {name: make(input_ids) for name, make in REQUIRED_INPUTS.items() if name in accepted}


def encoder_states(model: PreTrainedModel, inputs: Batch) -> Tensor:
    """Run a model without its head; return the last hidden state at every row of the flattened batch (B·T, H)."""
    output = model.base_model(**inputs, **required_inputs(model, inputs["input_ids"]))
    return cast(Tensor, output.last_hidden_state.flatten(0, 1))
