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

ATTENTION_NAME = "distilkit"  # our attention function in transformers' registry
REMEDY = "remove --alpha-hidden and --alpha-attention, or for distill choose another --objective"


class Attention(NamedTuple):
    """The inputs of a layer's self-attention: (B, heads, T, D) each, and the scaling factor of the scores."""

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float

    def scores(self) -> Tensor:
        """Return the attention scores (B, heads, T, T), before any mask."""
        key = self.key.repeat_interleave(self.query.shape[1] // self.key.shape[1], 1)  # query heads may share keys
        return (self.query @ key.mT) * self.scaling

    def relations(self, heads: int) -> list[Tensor]:
        """Return the relations among queries, among keys and among values, (B, relation heads, T, T) each."""
        return [relations(states, heads) for states in (self.query, self.key, self.value)]


class Activations(NamedTuple):
    """What the recorded layers computed in the last forward pass, by layer number."""

    hidden: dict[int, Tensor]  # (B·T, H)
    attention: dict[int, Attention]


# A stack, because recordings may be nested: only the innermost one records attention.
_active_recorders: list[tuple[dict[int, int], dict[int, Attention]]] = []


@contextmanager
def record_activations(
    model: PreTrainedModel, hidden: Sequence[int] = (), attention: Sequence[int] = ()
) -> Iterator[Activations]:
    """Context manager: record these layers' hidden states and attention inputs in every forward pass.

    Raises DistilkitError if a layer does not expose hidden states or attention in the usual form.
    """
    recorded = Activations({}, {})
    if not hidden and not attention:
        yield recorded
        return
    stack = find_stack(model)
    if is_shared(stack):  # The layers are one module, so its hooks would record the last pass only.
        raise DistilkitError(
            f"{type(model).__name__} shares one module between its layers, so they cannot be told apart: {REMEDY}"
        )
    rows = stack.layers
    with ExitStack() as hooks:
        for layer in hidden:
            module = model.get_submodule(rows[layer][-1])
            hooks.callback(module.register_forward_hook(_state_recorder(recorded.hidden, layer)).remove)
        layers_by_id = {id(m): i for i in attention for path in rows[i] for m in model.get_submodule(path).modules()}
        _active_recorders.append((layers_by_id, recorded.attention))
        hooks.callback(_active_recorders.pop)
        yield recorded
    for layer in attention:
        if layer not in recorded.attention:
            raise DistilkitError(f"cannot read the attention of {type(model).__name__}: {REMEDY}")


def show_attention(model: PreTrainedModel) -> None:
    """Switch a model to an attention function that record_activations() can read; results equal those of SDPA.

    Raises DistilkitError if the model does not allow another attention function.
    """
    model.set_attn_implementation(ATTENTION_NAME)
    if model.config._attn_implementation != ATTENTION_NAME:  # noqa: SLF001 - transformers has no public attribute for it
        raise DistilkitError(f"cannot read the attention of {type(model).__name__}: {REMEDY}")


def _state_recorder(states: dict[int, Tensor], layer: int) -> Callable[..., None]:
    """Return a forward hook that stores a layer's hidden state in `states`."""

    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        state = output if isinstance(output, Tensor) else output[0]
        if state.ndim != 3:
            raise DistilkitError(f"{type(module).__name__} returns no hidden state per token: {REMEDY}")
        states[layer] = state.flatten(0, 1)  # (B·T, H)

    return hook


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
    """Compute SDPA, and record its inputs if this module is in the innermost active recording."""
    layers_by_id, recorded = _active_recorders[-1] if _active_recorders else ({}, {})
    if id(module) in layers_by_id:
        scaling = options.get("scaling") or 1 / math.sqrt(query.shape[-1])
        recorded[layers_by_id[id(module)]] = Attention(query, key, value, scaling)
    return sdpa_attention_forward(module, query, key, value, *args, **options)


AttentionInterface.register(ATTENTION_NAME, _attend)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
