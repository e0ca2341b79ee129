"""What a model computes on its way to the answer: hidden states, attention, the head at some rows only.

All of it is seen through hooks on what every architecture has, so nothing here knows a model family.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distilkit.errors import DistilkitError
from distilkit.losses import Head, relations
from distilkit.stack import find_stack, is_shared

Batch = dict[str, Tensor]
INSTEAD = "leave out --alpha-hidden and --alpha-attention, or for distill choose another --objective"

# Inputs without which some forwards do not run, by name (X-MOD: a language for each sequence; the first one here).
NEEDED: dict[str, Callable[[Tensor], Tensor]] = {
    "lang_ids": lambda ids: torch.zeros(len(ids), dtype=torch.long, device=ids.device)
}


def take(rows_of: Tensor, rows: Tensor | None) -> Tensor:
    """Return the rows asked for, all of them for None."""
    return rows_of if rows is None else rows_of[rows]


def logits_at(model: PreTrainedModel, inputs: Batch, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a masked-LM model with its vocabulary head at some rows of the flattened batch only (None: at all).

    Returns the last hidden state at every row (B·T, H) and the logits at the rows asked for (R, V). The body's output
    is narrowed on its way to the head by a hook, so any masked-LM class will do.
    """
    whole: list[Tensor] = []

    def narrow(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state.flatten(0, 1)  # (B·T, H)
        whole.append(hidden)
        output.last_hidden_state = take(hidden, rows).unsqueeze(0)  # (1, R, H)
        return output

    hook = model.base_model.register_forward_hook(narrow)
    try:
        logits = model(**inputs, **needed_inputs(model, inputs["input_ids"])).logits.squeeze(0)  # (R, V)
    finally:
        hook.remove()
    return whole[0], logits


def head_at(model: PreTrainedModel, inputs: Batch, rows: Tensor | None) -> tuple[Tensor, Head]:
    """Run a masked-LM model up to the last layer of its vocabulary head, at some rows only.

    Returns the last hidden state at every row (B·T, H), and what the logits at the rows asked for are computed from.
    """
    last = cast(nn.Linear, model.get_output_embeddings())
    features: list[Tensor] = []

    def divert(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features.append(args[0].squeeze(0))  # (R, H)
        return (args[0][:, :1],)

    hook = last.register_forward_pre_hook(divert)
    try:
        hidden, _ = logits_at(model, inputs, rows)
    finally:
        hook.remove()
    return hidden, Head(features[0], last.weight, last.bias)


@torch.no_grad()
def ends_in_linear(model: PreTrainedModel) -> bool:
    """Say whether head_at() gives all that a model's logits are made of; MobileBERT's and ESM's heads add to it."""
    training, device = model.training, next(model.parameters()).device
    inputs = {"input_ids": torch.arange(8, device=device).unsqueeze(0)}
    model.eval()
    try:
        features, weight, bias = head_at(model, inputs, None)[1]
        same = torch.allclose(F.linear(features, weight, bias), logits_at(model, inputs, None)[1], atol=1e-4)
    except (AttributeError, IndexError):  # no last layer, or one that isn't called
        same = False
    model.train(training)
    return same


def needed_inputs(model: PreTrainedModel, input_ids: Tensor) -> Batch:
    """Return the inputs, made up from token ids (B, T), without which a model would not run."""
    if getattr(model.config, "default_language", "") is not None:
        return {}
    accepted = {name for part in (model, model.base_model) for name in inspect.signature(part.forward).parameters}
    return {name: make(input_ids) for name, make in NEEDED.items() if name in accepted}


def body_at(model: PreTrainedModel, inputs: Batch) -> Tensor:
    """Run a model without its head; returns the last hidden state at every row of the flattened batch (B·T, H)."""
    output = model.base_model(**inputs, **needed_inputs(model, inputs["input_ids"]))
    return cast(Tensor, output.last_hidden_state.flatten(0, 1))


class Attention(NamedTuple):
    """What a layer's self-attention compares: (B, heads, T, D) each, and the factor of the scores."""

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float

    def scores(self) -> Tensor:
        """Return the attention scores (B, heads, T, T), before any mask."""
        key = self.key.repeat_interleave(self.query.shape[1] // self.key.shape[1], 1)  # heads may share keys
        return (self.query @ key.mT) * self.scaling

    def relations(self, heads: int) -> list[Tensor]:
        """Return how queries, keys and values are related, each with its own kind (B, relation heads, T, T)."""
        return [relations(states, heads) for states in (self.query, self.key, self.value)]


class Inside(NamedTuple):
    """What the layers watched gave in the last forward pass, in their order."""

    hidden: dict[int, Tensor]  # (B·T, H)
    attention: dict[int, Attention]


@contextmanager
def watch(model: PreTrainedModel, hidden: Sequence[int] = (), attention: Sequence[int] = ()) -> Iterator[Inside]:
    """Within it, every forward pass leaves the hidden states after those layers, and what those layers' attention saw.

    Raises DistilkitError where a layer has no hidden state or attention of the usual kind to show.
    """
    inside = Inside({}, {})
    if not hidden and not attention:
        yield inside
        return
    stack = find_stack(model)
    if is_shared(stack):  # one module for all: its hooks would only tell of the last turn
        raise DistilkitError(f"{type(model).__name__} repeats one layer, which shows only its last turn: {INSTEAD}")
    rows = stack.layers
    with ExitStack() as hooks:
        for layer in hidden:
            module = model.get_submodule(rows[layer][-1])
            hooks.callback(module.register_forward_hook(_keep(inside.hidden, layer)).remove)
        places = {id(m): i for i in attention for path in rows[i] for m in model.get_submodule(path).modules()}
        _seen.append((places, inside.attention))
        hooks.callback(_seen.pop)
        yield inside
    for layer in attention:
        if layer not in inside.attention:
            raise DistilkitError(f"{type(model).__name__} does not show its attention: {INSTEAD}")


def show_attention(model: PreTrainedModel) -> None:
    """Let a model compute its attention in the way that watch() can see; the numbers are those of SDPA.

    Raises DistilkitError where the model's attention can't be exchanged.
    """
    model.set_attn_implementation(SHOWN)
    if model.config._attn_implementation != SHOWN:  # noqa: SLF001 - transformers has no other way to ask
        raise DistilkitError(f"{type(model).__name__} does not show its attention: {INSTEAD}")


def _keep(kept: dict[int, Tensor], layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        state = output if isinstance(output, Tensor) else output[0]
        if state.ndim != 3:
            raise DistilkitError(f"{type(module).__name__} gives no hidden state a token: {INSTEAD}")
        kept[layer] = state.flatten(0, 1)  # (B·T, H)

    return hook


SHOWN = "distilkit"
_seen: list[tuple[dict[int, int], dict[int, Attention]]] = []  # the innermost watch() is the last


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
    places, kept = _seen[-1] if _seen else ({}, {})
    if id(module) in places:
        scaling = options.get("scaling") or 1 / math.sqrt(query.shape[-1])
        kept[places[id(module)]] = Attention(query, key, value, scaling)
    return sdpa_attention_forward(module, query, key, value, *args, **options)


AttentionInterface.register(SHOWN, _attend)
AttentionMaskInterface.register(SHOWN, sdpa_mask)
