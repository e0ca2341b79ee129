"""Some of a model's layers in a smaller model: the config shrunk, and every tensor found by name.

Nothing here knows a model family. Where one needs an exception, it is a row of the table at the top.
"""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distilkit.checkpoint import drop_pooler
from distilkit.errors import DistilkitError
from distilkit.stack import Stack, find_stack

# By the class of a layer: a factor that depends on the depth and divides the output of these of its parts. It is folded
# into their weights, so that a shorter model computes the same (ESM C: residual branches over √(layers / 36)).
FOLDED = {"EsmcLayer": ("scaling_factor", ("self_attn.o_proj", "mlp.down_proj"))}


def extract(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return a model with only those layers of the teacher, and the config shrunk alike; it shares no memory with it.

    Raises DistilkitError where the layers don't fit the places that they come to.
    """
    return copy.deepcopy(share(teacher, layers))


def share(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return what extract() does, with the teacher's own memory for weights: nothing is copied."""
    stack = find_stack(teacher)
    refusals = []
    for changes in shrink(teacher.config, stack, layers):
        try:
            student = skeleton(teacher, changed(teacher.config, changes))
            return fill(student, _taken(teacher, student, stack, layers))
        except DistilkitError as error:
            refusals.append(error)
    raise refusals[0]


def shrink(config: PretrainedConfig, stack: Stack, layers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield what a model with only those layers changes in the config, likeliest first.

    Every list as long as the model is deep is taken for a list by layer; then each in turn for one that isn't.
    """
    values, depth = config.to_dict(), len(stack.layers)
    lists = [name for name, value in values.items() if isinstance(value, (list, tuple)) and len(value) == depth]
    for spared in (None, *lists):
        changes: dict[str, Any] = {name: [values[name][i] for i in layers] for name in lists if name != spared}
        if overrides := values.get("per_layer_config"):
            by_layer = {int(i): override for i, override in overrides.items()}
            changes["per_layer_config"] = {new: by_layer[i] for new, i in enumerate(layers) if i in by_layer}
        if stack.blocks:
            ends = list(itertools.accumulate(stack.blocks))
            counts = [sum(end - size <= i < end for i in layers) for size, end in zip(stack.blocks, ends, strict=True)]
            if not all(counts):
                raise DistilkitError(f"layers {listed(layers)} leave a block without any")
            changes |= {name: counts for name, value in values.items() if value == list(stack.blocks)}
        else:
            changes[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(layers)
        yield changes


def changed(config: PretrainedConfig, changes: Mapping[str, Any]) -> PretrainedConfig:
    """Return a copy of a config with other values, checked as a whole.

    Raises DistilkitError where the architecture doesn't allow them.
    """
    try:
        return type(config).from_dict(copy.deepcopy(config.to_dict()) | dict(changes))
    except (StrictDataclassError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise DistilkitError(f"{config.model_type} does not allow these layers ({reason})") from None


def skeleton(
    like: PreTrainedModel, config: PretrainedConfig, model_class: type[PreTrainedModel] | None = None
) -> PreTrainedModel:
    """Make a model of another one's class (or of `model_class`) whose parameters have shapes but no memory.

    Raises DistilkitError where the architecture doesn't allow the config.
    """
    try:
        with init_empty_weights(include_buffers=False):
            model = cast(PreTrainedModel, (model_class or type(like))(config).eval())
    except (ValueError, IndexError) as error:  # NeoMME: IndexError or ValueError where no layer attends to everything
        raise DistilkitError(f"{config.model_type} does not allow these layers ({error})") from None
    if getattr(cast(Any, like).base_model, "pooler", ...) is None:
        drop_pooler(model)
    return model


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a model's tensors by name; tied ones are one and the same object."""
    once: dict[int, Tensor] = {}
    return {name: once.setdefault(id(t), t.detach()) for name, t in model.state_dict(keep_vars=True).items()}


def fill(student: PreTrainedModel, tensors: Mapping[str, Tensor]) -> PreTrainedModel:
    """Give a skeleton its tensors; names with one and the same tensor are tied.

    Raises DistilkitError where one is missing, left over or of another shape.
    """
    expected = {name: tensor.shape for name, tensor in student.state_dict().items()}
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name]:
            what = "lacks" if name not in tensors else "has no place for" if name not in expected else "resizes"
            raise DistilkitError(f"a model of these layers {what} '{name}'")
    tied: dict[int, nn.Parameter] = {}
    parameters = dict(student.named_parameters(remove_duplicate=False))

    def parameter(tensor: Tensor) -> nn.Parameter:
        return tied.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))

    student.load_state_dict(
        {name: parameter(tensor) if name in parameters else tensor for name, tensor in tensors.items()}, assign=True
    )
    return student


def _taken(
    teacher: PreTrainedModel, student: PreTrainedModel, stack: Stack, layers: Sequence[int]
) -> dict[str, Tensor]:
    """Return the student's tensors by name: the teacher's own, but for what depends on the depth."""
    theirs = weights(teacher)
    names = dict(sources(student, stack, layers))
    dropped = {name for i, row in enumerate(stack.layers) if i not in layers for name in row} - {
        name for i in layers for name in stack.layers[i]
    }
    left_over = {name for name in theirs if not any(name.startswith(f"{path}.") for path in dropped)}
    for name in sorted(left_over - set(names.values())):
        raise DistilkitError(f"layers {listed(layers)} put '{name}' where this architecture has no such weight")
    for source in sorted(set(names.values()) - theirs.keys()):
        raise DistilkitError(f"layers {listed(layers)} need '{source}', which this teacher doesn't have")
    shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    tensors = {
        name: by_layer(theirs[source], shapes[name], len(stack.layers), layers) for name, source in names.items()
    }
    return tensors | dict(_folded(teacher, student, stack, layers, tensors))


def sources(student: PreTrainedModel, stack: Stack, layers: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield each of the student's tensors with the name of the teacher's that it is."""
    ours = [path for row in find_stack(student).layers for path in row]
    theirs = [path for i in layers for path in stack.layers[i]]
    for name in student.state_dict():
        at = next((n for n, path in enumerate(ours) if name.startswith(f"{path}.")), None)
        yield name, name if at is None else theirs[at] + name[len(ours[at]) :]


def by_layer(tensor: Tensor, shape: torch.Size, depth: int, layers: Sequence[int]) -> Tensor:
    """Return a tensor with the columns of those layers only, where every layer has its own (ESM's contact head)."""
    for axis, (size, wanted) in enumerate(zip(tensor.shape, shape, strict=False)):
        if size != wanted and size * len(layers) == wanted * depth:
            index = torch.arange(size, device=tensor.device).view(depth, -1)[list(layers)].flatten()
            return tensor.index_select(axis, index)
    return tensor


def _folded(
    teacher: PreTrainedModel, student: PreTrainedModel, stack: Stack, layers: Sequence[int], tensors: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    for row, at in zip(find_stack(student).layers, layers, strict=True):
        layer, source = student.get_submodule(row[0]), teacher.get_submodule(stack.layers[at][0])
        attribute, parts = FOLDED.get(type(layer).__name__, ("", ()))
        if not attribute:
            return
        ratio = getattr(layer, attribute) / getattr(source, attribute)
        names = [f"{row[0]}.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
        for name in set(names) & tensors.keys():
            if tensors[name].itemsize < 4 and math.frexp(ratio)[0] != 0.5:  # a power of two would not round
                raise DistilkitError(
                    f"{attribute} depends on the depth, and folding it into {tensors[name].dtype} weights would round"
                    " them: keep a quarter of the layers, or save the teacher in fp32 first"
                )
            yield name, tensors[name] * ratio


def listed(layers: Sequence[int]) -> str:
    """Spell layers as --keep takes them."""
    return ",".join(map(str, layers))
