"""The stack of layers in an encoder: find it, and pass over some of it.

Nothing here knows a model family. Where one needs an exception, it is a row of the table at the top.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit.errors import DistilkitError

# Encoders whose layers are no stack that a hidden state runs through, by model type.
REFUSED = {
    "perceiver": "its layers are repeated blocks over a latent array, not a stack",
    "reformer": "its reversible layers pass on two streams, so a layer has no output of its own",
}


class Stack(NamedTuple):
    """The layers of a model, each the names of the modules that make it up (one; several in XLM's side-by-side lists).

    `blocks` holds the lengths of the blocks that the layers lie in (Funnel), () where they lie in none.
    """

    layers: list[tuple[str, ...]]
    blocks: tuple[int, ...] = ()


def find_stack(model: PreTrainedModel) -> Stack:
    """Return a model's layers: what the module lists hold that are as long as its config says it is deep.

    Raises DistilkitError where there is no one such stack.
    """
    config, name = model.config, type(model).__name__
    if config.model_type in REFUSED:
        raise DistilkitError(f"{name} cannot be shortened: {REFUSED[config.model_type]}: give another teacher")
    depth = getattr(config, "num_hidden_layers", 0)
    lists = {path: rows for path, rows in _lists(model) if len(rows) == depth}
    outermost = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len({path.rpartition(".")[0] for path in outermost}) == 1:
        layers = list(zip(*(lists[path] for path in outermost), strict=True))
        children = model.get_submodule(outermost[0]).children()
        return Stack(layers, tuple(len(block) for block in children if isinstance(block, nn.ModuleList)))
    shared = [rows for _, rows in _lists(model) if len(rows) == 1 == getattr(config, "num_hidden_groups", 0)]
    if shared and not outermost:  # ALBERT: one layer, repeated
        return Stack([(shared[0][0],)] * depth)
    groups = getattr(config, "num_hidden_groups", None)
    reason = f"its {depth} layers share {groups} sets of weights" if groups else f"{len(outermost)} stacks of {depth}"
    raise DistilkitError(f"{name} cannot be shortened: {reason}: give another teacher")


def _lists(model: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield each module list with the names of its modules, those of lists within it in their stead."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            rows = []
            for index, child in enumerate(module):
                inner = range(len(child)) if isinstance(child, nn.ModuleList) else ()
                rows += [f"{path}.{index}.{number}" for number in inner] or [f"{path}.{index}"]
            yield path, rows


def is_shared(stack: Stack) -> bool:
    """Say whether all layers of a stack are one and the same (ALBERT)."""
    return len(stack.layers) > 1 and len(set(stack.layers)) == 1


@contextmanager
def passed_over(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[None]:
    """Within it, a model computes as if it had only those layers: the others hand on what they are given."""
    kept: dict[nn.Module, list[bool]] = {}
    stack = find_stack(model)
    branches = {path for row in stack.layers for path in row if len(row) > 1}
    for index, row in enumerate(stack.layers):
        for path in row:
            kept.setdefault(model.get_submodule(path), []).append(index in layers)
    names = {module: path for path, module in model.named_modules()}
    changed = [module for module, calls in kept.items() if not all(calls)]
    try:
        for module in changed:
            # what lies beside other lists is added to the hidden state: it hands on nothing, but for the norms
            silent = names[module] in branches and not isinstance(module, nn.LayerNorm)
            module.forward = _passing(module.forward, kept[module], silent=silent)
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward", None)


def _passing(forward: Callable[..., Any], kept: list[bool], *, silent: bool) -> Callable[..., Any]:
    turns = itertools.cycle(kept)

    def run(*args: Any, **inputs: Any) -> Any:
        output = forward(*args, **inputs)
        if next(turns):
            return output
        hidden = args[0] if args else inputs["hidden_states"]
        passed = torch.zeros_like(hidden) if silent else hidden
        if isinstance(output, Tensor):
            return passed
        if isinstance(output, dict):
            return output | {next(iter(output)): passed}
        return (passed, *output[1:])

    return run
