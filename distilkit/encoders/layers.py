"""The stack of layers in an encoder: find it, keep some layers, or skip some while running.

Nothing here depends on the model family. Exceptions are rows of the tables REFUSED and FOLDED_FACTORS.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distilkit.encoders.surgery import assign_tensors, build_empty, changed_config, tensors_by_name
from distilkit.errors import DistilkitError

# Encoders whose layers are not a plain stack, by model type, with the reason.
REFUSED = {
    "perceiver": "its layers are repeated blocks over a latent array, not a stack",
    "reformer": "its reversible layers pass on two streams, so a layer has no output of its own",
}


class Stack(NamedTuple):
    """The layers of a model. Each layer is a tuple of module names: one, or several in XLM's parallel lists.

    `blocks` has the lengths of the blocks that the layers belong to (Funnel); () if there are no blocks.
    """

    layers: list[tuple[str, ...]]
    blocks: tuple[int, ...] = ()


def find_stack(model: PreTrainedModel) -> Stack:
    """Find a model's layers: the module lists whose length is the depth in the config.

    Raises DistilkitError if there is no single such stack.
    """
    config, name = model.config, type(model).__name__
    if config.model_type in REFUSED:
        raise DistilkitError(f"{name} cannot be shortened: {REFUSED[config.model_type]}: give another teacher")
    depth = getattr(config, "num_hidden_layers", 0)
    lists = {path: rows for path, rows in _module_lists(model) if len(rows) == depth}
    outermost = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len({path.rpartition(".")[0] for path in outermost}) == 1:
        layers = list(zip(*(lists[path] for path in outermost), strict=True))
        children = model.get_submodule(outermost[0]).children()
        return Stack(layers, tuple(len(block) for block in children if isinstance(block, nn.ModuleList)))
    shared = [rows for _, rows in _module_lists(model) if len(rows) == 1 == getattr(config, "num_hidden_groups", 0)]
    if shared and not outermost:  # ALBERT: one layer, repeated
        return Stack([(shared[0][0],)] * depth)
    groups = getattr(config, "num_hidden_groups", None)
    stacks = f"it has {len(outermost)} stacks of {depth} layers, not one"
    reason = f"its {depth} layers share {groups} sets of weights" if groups else stacks
    raise DistilkitError(f"{name} cannot be shortened: {reason}: give another teacher")


def _module_lists(model: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield each module list with the names of its modules; nested lists are replaced by their modules."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            rows = []
            for index, child in enumerate(module):
                inner = range(len(child)) if isinstance(child, nn.ModuleList) else ()
                rows += [f"{path}.{index}.{number}" for number in inner] or [f"{path}.{index}"]
            yield path, rows


def is_shared(stack: Stack) -> bool:
    """Say whether all layers share one set of weights (ALBERT)."""
    return len(stack.layers) > 1 and len(set(stack.layers)) == 1


@contextmanager
def skip_layers(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[None]:
    """Context manager: run only `layers`; every other layer returns its input unchanged."""
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
            # The outputs of parallel lists are added to the hidden state, so a skipped module returns zeros there,
            # except for a norm, which replaces the hidden state.
            as_zeros = names[module] in branches and not isinstance(module, nn.LayerNorm)
            module.forward = _skipping_forward(module.forward, kept[module], as_zeros=as_zeros)
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward", None)


def _skipping_forward(forward: Callable[..., Any], kept: list[bool], *, as_zeros: bool) -> Callable[..., Any]:
    """Wrap a layer's forward; `kept` has one entry per call in a pass (ALBERT calls its layer repeatedly)."""
    calls = itertools.cycle(kept)

    def run(*args: Any, **inputs: Any) -> Any:
        output = forward(*args, **inputs)
        if next(calls):
            return output
        hidden = args[0] if args else inputs["hidden_states"]
        skipped = torch.zeros_like(hidden) if as_zeros else hidden
        if isinstance(output, Tensor):
            return skipped
        if isinstance(output, dict):
            return output | {next(iter(output)): skipped}
        return (skipped, *output[1:])

    return run


# By layer class: a depth-dependent factor that divides the outputs of these submodules. It is folded into their
# weights, so that a shorter model computes the same (ESM C: residual branches over √(layers / 36)).
FOLDED_FACTORS = {"EsmcLayer": ("scaling_factor", ("self_attn.o_proj", "mlp.down_proj"))}


def extract(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return a model with only these layers of the teacher and a matching config. It shares no memory with the teacher.

    Raises DistilkitError if the layers do not fit their new positions.
    """
    return copy.deepcopy(truncate_shared(teacher, layers))


def truncate_shared(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return the model of extract(), but with weights in the teacher's own memory."""
    stack = find_stack(teacher)
    refusals = []
    for changes in candidate_configs(teacher.config, stack, layers):
        try:
            student = build_empty(teacher, changed_config(teacher.config, changes))
            return assign_tensors(student, _student_tensors(teacher, student, stack, layers))
        except DistilkitError as error:
            refusals.append(error)
    raise refusals[0]


def candidate_configs(config: PretrainedConfig, stack: Stack, layers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the config changes for a model with only these layers, the most likely first.

    The first candidate treats every list with one entry per layer as a per-layer list. Each further candidate leaves
    one of these lists unchanged.
    """
    values, depth = config.to_dict(), len(stack.layers)
    lists = [name for name, value in values.items() if isinstance(value, (list, tuple)) and len(value) == depth]
    for unchanged in (None, *lists):
        changes: dict[str, Any] = {name: [values[name][i] for i in layers] for name in lists if name != unchanged}
        if overrides := values.get("per_layer_config"):
            by_layer = {int(i): override for i, override in overrides.items()}
            changes["per_layer_config"] = {new: by_layer[i] for new, i in enumerate(layers) if i in by_layer}
        if stack.blocks:
            ends = list(itertools.accumulate(stack.blocks))
            counts = [sum(end - size <= i < end for i in layers) for size, end in zip(stack.blocks, ends, strict=True)]
            if not all(counts):
                raise DistilkitError(f"layers {format_layers(layers)} leave a block of layers empty")
            changes |= {name: counts for name, value in values.items() if value == list(stack.blocks)}
        else:
            changes[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(layers)
        yield changes


def _student_tensors(
    teacher: PreTrainedModel, student: PreTrainedModel, stack: Stack, layers: Sequence[int]
) -> dict[str, Tensor]:
    """Return the student's tensors by name: the teacher's own, except for those that depend on the depth."""
    theirs = tensors_by_name(teacher)
    names = dict(source_names(student, stack, layers))
    dropped = {name for i, row in enumerate(stack.layers) if i not in layers for name in row} - {
        name for i in layers for name in stack.layers[i]
    }
    left_over = {name for name in theirs if not any(name.startswith(f"{path}.") for path in dropped)}
    for name in sorted(left_over - set(names.values())):
        raise DistilkitError(f"layers {format_layers(layers)} put '{name}' where this architecture has no such weight")
    for source in sorted(set(names.values()) - theirs.keys()):
        raise DistilkitError(f"layers {format_layers(layers)} need '{source}', which this teacher lacks")
    shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    tensors = {
        name: select_layer_columns(theirs[source], shapes[name], len(stack.layers), layers)
        for name, source in names.items()
    }
    return tensors | dict(_fold_factors(teacher, student, stack, layers, tensors))


def source_names(student: PreTrainedModel, stack: Stack, layers: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield each of the student's tensor names with the name of the teacher's tensor that it takes."""
    ours = [path for row in find_stack(student).layers for path in row]
    theirs = [path for i in layers for path in stack.layers[i]]
    for name in student.state_dict():
        at = next((n for n, path in enumerate(ours) if name.startswith(f"{path}.")), None)
        yield name, name if at is None else theirs[at] + name[len(ours[at]) :]


def select_layer_columns(tensor: Tensor, shape: torch.Size, depth: int, layers: Sequence[int]) -> Tensor:
    """Return a tensor with the columns of these layers only, if each layer has its own (ESM's contact head)."""
    for axis, (size, wanted) in enumerate(zip(tensor.shape, shape, strict=False)):
        if size != wanted and size * len(layers) == wanted * depth:
            index = torch.arange(size, device=tensor.device).view(depth, -1)[list(layers)].flatten()
            return tensor.index_select(axis, index)
    return tensor


def _fold_factors(
    teacher: PreTrainedModel, student: PreTrainedModel, stack: Stack, layers: Sequence[int], tensors: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    for row, at in zip(find_stack(student).layers, layers, strict=True):
        layer, source = student.get_submodule(row[0]), teacher.get_submodule(stack.layers[at][0])
        attribute, parts = FOLDED_FACTORS.get(type(layer).__name__, ("", ()))
        if not attribute:
            return
        ratio = getattr(layer, attribute) / getattr(source, attribute)
        names = [f"{row[0]}.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
        for name in set(names) & tensors.keys():
            if tensors[name].itemsize < 4 and math.frexp(ratio)[0] != 0.5:  # a power of two does not round
                raise DistilkitError(
                    f"{attribute} depends on the depth, and folding it into {tensors[name].dtype} weights would round"
                    " them: keep a quarter of the layers, or save the teacher in fp32 first"
                )
            yield name, tensors[name] * ratio


def format_layers(layers: Sequence[int]) -> str:
    """Format layers as --keep takes them."""
    return ",".join(map(str, layers))
