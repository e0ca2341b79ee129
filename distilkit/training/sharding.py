"""Weights or optimizer states of which every process has a part (FSDP, DeepSpeed), and the student that stays whole."""

import copy
from collections.abc import Mapping
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from distilkit.encoders.layers import find_stack
from distilkit.errors import DistilkitError
from distilkit.options.training import TrainOptions
from distilkit.progress import warn
from distilkit.training.objective import Objective


class Sharding:
    """Stands between a student, which is read and saved as any other, and the copy of it that the processes share out.

    Without FSDP and DeepSpeed there is no copy: the student itself is trained.
    Raises DistilkitError for ways of cutting up a model that the training loop can't be trusted with.
    """

    def __init__(self, accelerator: Accelerator, objective: Objective, config: TrainOptions) -> None:
        self.kind = accelerator.distributed_type
        self.is_on = self.kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        self.student, self.device = objective.student, accelerator.device
        if parse_flag_from_env("ACCELERATE_USE_FSDP") and not self.is_on:
            warn("accelerate has FSDP for several accelerators only: every process trains all of the weights")
        if self.is_on:
            objective.student = copy.deepcopy(self.student)
        if self.kind == DistributedType.FSDP:
            prepare_fsdp(accelerator, objective)
        if self.kind == DistributedType.DEEPSPEED:
            prepare_deepspeed(accelerator.state.deepspeed_plugin, config)

    def gather(self, wrapped: nn.Module) -> None:
        """Give the student the weights as they are now; all processes have to call this."""
        if not self.is_on:
            return
        if self.kind == DistributedType.FSDP:
            state: Mapping[str, Any] = get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))
        else:
            state = whole_precision(cast(Any, wrapped).module)
        own = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
        self.student.to(self.device).load_state_dict(own)


def whole_precision(module: nn.Module) -> dict[str, Tensor]:
    """Return the state of what DeepSpeed trains, weights as the optimizer has them, not rounded to the precision."""
    from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]  # only where it is in use

    state: dict[str, Tensor] = module.state_dict()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        weight = safe_get_full_fp32_param(parameter)
        state[name] = parameter if weight is None else weight
    return state


def prepare_fsdp(accelerator: Accelerator, objective: Objective) -> None:
    """Tell accelerate's transformer policy what to wrap: it asks the module that it is given, which is the objective.

    Only layers, not what transformers names beside them: embeddings are tied to the head, outside of them.
    """
    if not accelerator.is_fsdp2:
        raise DistilkitError("FSDP's first version cuts through the loss's own view of a model: --fsdp_version 2")
    layers = [objective.student.get_submodule(part) for layer in find_stack(objective.student).layers for part in layer]
    cast(Any, objective)._no_split_modules = sorted({type(layer).__name__ for layer in layers})  # noqa: SLF001


def prepare_deepspeed(plugin: Any, config: TrainOptions) -> None:
    """Give DeepSpeed, which makes the update itself, the loop's clipping, and no accumulation of its own."""
    if plugin.zero_stage > 2:
        raise DistilkitError("ZeRO's stage 3 cuts through the loss's own view of a model: take stage 2, or FSDP")
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": config.batch_size,
        "gradient_accumulation_steps": 1,  # the loop's own: losses are divided already, and it says which batch is last
        "gradient_clipping": config.max_grad_norm,
    }
