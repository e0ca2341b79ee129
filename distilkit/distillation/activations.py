"""Record hidden states and attention inside a model through hooks."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from distilkit.distillation.losses import relations
from distilkit.encoders.layers import find_stack, is_shared
from distilkit.errors import DistilkitError

REMEDY = "leave out --alpha-hidden and --alpha-attention, or for distill choose another --objective"


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


class Activations(NamedTuple):
    """What the layers watched gave in the last forward pass, in their order."""

    hidden: dict[int, Tensor]  # (B·T, H)
    attention: dict[int, Attention]


@contextmanager
def record_activations(
    model: PreTrainedModel, hidden: Sequence[int] = (), attention: Sequence[int] = ()
) -> Iterator[Activations]:
    """Within it, every forward pass leaves the hidden states after those layers, and what those layers' attention saw.

    Raises DistilkitError where a layer has no hidden state or attention of the usual kind to show.
    """
    inside = Activations({}, {})
    if not hidden and not attention:
        yield inside
        return
    stack = find_stack(model)
    if is_shared(stack):  # one module for all: its hooks would only tell of the last turn
        raise DistilkitError(f"{type(model).__name__} repeats one layer, which shows only its last turn: {REMEDY}")
    rows = stack.layers
    with ExitStack() as hooks:
        for layer in hidden:
            module = model.get_submodule(rows[layer][-1])
            hooks.callback(module.register_forward_hook(_keep(inside.hidden, layer)).remove)
        places = {id(m): i for i in attention for path in rows[i] for m in model.get_submodule(path).modules()}
        _active_recorders.append((places, inside.attention))
        hooks.callback(_active_recorders.pop)
        yield inside
    for layer in attention:
        if layer not in inside.attention:
            raise DistilkitError(f"{type(model).__name__} does not show its attention: {REMEDY}")


def show_attention(model: PreTrainedModel) -> None:
    """Let a model compute its attention in the way that watch() can see; the numbers are those of SDPA.

    Raises DistilkitError where the model's attention can't be exchanged.
    """
    model.set_attn_implementation(ATTENTION_NAME)
    if model.config._attn_implementation != ATTENTION_NAME:  # noqa: SLF001 - transformers has no other way to ask
        raise DistilkitError(f"{type(model).__name__} does not show its attention: {REMEDY}")


def _keep(kept: dict[int, Tensor], layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        state = output if isinstance(output, Tensor) else output[0]
        if state.ndim != 3:
            raise DistilkitError(f"{type(module).__name__} gives no hidden state a token: {REMEDY}")
        kept[layer] = state.flatten(0, 1)  # (B·T, H)

    return hook


ATTENTION_NAME = "distilkit"


_active_recorders: list[tuple[dict[int, int], dict[int, Attention]]] = []  # the innermost watch() is the last


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
    places, kept = _active_recorders[-1] if _active_recorders else ({}, {})
    if id(module) in places:
        scaling = options.get("scaling") or 1 / math.sqrt(query.shape[-1])
        kept[places[id(module)]] = Attention(query, key, value, scaling)
    return sdpa_attention_forward(module, query, key, value, *args, **options)


AttentionInterface.register(ATTENTION_NAME, _attend)


AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
