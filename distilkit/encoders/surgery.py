"""Build a model from a changed config and named tensors."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distilkit.encoders.checkpoint import drop_pooler
from distilkit.encoders.contents import Head, model_class
from distilkit.errors import DistilkitError


def changed_config(config: PretrainedConfig, changes: Mapping[str, Any]) -> PretrainedConfig:
    """Return a copy of a config with other values, validated as a whole.

    Raises DistilkitError if the architecture does not allow them.
    """
    try:
        return type(config).from_dict(copy.deepcopy(config.to_dict()) | dict(changes))
    except (StrictDataclassError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise DistilkitError(f"{config.model_type} does not allow these layers ({reason})") from None


def build_empty(
    like: PreTrainedModel, config: PretrainedConfig, model_class: type[PreTrainedModel] | None = None
) -> PreTrainedModel:
    """Build a model of the same class (or of `model_class`) whose parameters have shapes but no memory.

    Raises DistilkitError if the architecture does not allow the config.
    """
    try:
        with init_empty_weights(include_buffers=False):
            model = cast(PreTrainedModel, (model_class or type(like))(config).eval())
    except (ValueError, IndexError) as error:  # NeoMME raises both if no layer has global attention
        raise DistilkitError(f"{config.model_type} does not allow these layers ({error})") from None
    if getattr(cast(Any, like).base_model, "pooler", ...) is None:
        drop_pooler(model)
    return model


def build_from_config(config: PretrainedConfig, head: Head) -> PreTrainedModel:
    """Build the model of a config with a head, without weights: its parameters have shapes but no memory.

    Raises DistilkitError if the architecture has no such head.
    """
    if (chosen := model_class(config, head)) is None:
        raise DistilkitError(f"{config.model_type} has no model with a {head} head: give another checkpoint")
    with init_empty_weights(include_buffers=False):
        model = cast(PreTrainedModel, chosen(config).eval())
    model.tie_weights()  # left out by the constructor, which initialises no empty model
    return model


def reinitialise(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Return a model of the same config and dtype whose weights are initialised at random, as transformers does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new: Any = type(model)(copy.deepcopy(model.config)).eval()
    if getattr(cast(Any, model).base_model, "pooler", ...) is None:
        drop_pooler(new)
    return cast(PreTrainedModel, new.to(model.dtype))


def tensors_by_name(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a model's tensors by name; tied names share one tensor object."""
    by_id: dict[int, Tensor] = {}
    return {name: by_id.setdefault(id(t), t.detach()) for name, t in model.state_dict(keep_vars=True).items()}


def assign_tensors(student: PreTrainedModel, tensors: Mapping[str, Tensor]) -> PreTrainedModel:
    """Put tensors into an empty model; names with the same tensor object are tied.

    Raises DistilkitError if one is missing, left over or of another shape.
    """
    expected = {name: tensor.shape for name, tensor in student.state_dict().items()}
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name]:
            problem = "lacks" if name not in tensors else "does not use" if name not in expected else "reshapes"
            raise DistilkitError(f"a model with these layers {problem} the weight '{name}'")
    tied: dict[int, nn.Parameter] = {}
    parameters = dict(student.named_parameters(remove_duplicate=False))

    def parameter(tensor: Tensor) -> nn.Parameter:
        return tied.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))

    student.load_state_dict(
        {name: parameter(tensor) if name in parameters else tensor for name, tensor in tensors.items()}, assign=True
    )
    return student
