"""FSDP and DeepSpeed: train a sharded copy of the student, and gather its weights to evaluate and save them."""

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
    """The student of an objective and, under FSDP or DeepSpeed, its sharded copy.

    The objective then trains the copy; the student is evaluated and saved like any other model. Without FSDP and
    DeepSpeed there is no copy.
    Raises DistilkitError for unsupported kinds of sharding.
    """

    def __init__(self, accelerator: Accelerator, objective: Objective, options: TrainOptions) -> None:
        self.kind = accelerator.distributed_type
        self.is_on = self.kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        self.student, self.device = objective.student, accelerator.device
        if parse_flag_from_env("ACCELERATE_USE_FSDP") and not self.is_on:
            warn("FSDP requires several GPUs: every process trains all weights")
        if self.is_on and objective.modules_to_save:
            raise DistilkitError(
                f"FSDP and DeepSpeed cannot train the {objective.modules_to_save}: train on one GPU or with DDP"
            )
        if self.is_on:
            objective.student = copy.deepcopy(self.student)
        if self.kind == DistributedType.FSDP:
            prepare_fsdp(accelerator, objective)
        if self.kind == DistributedType.DEEPSPEED:
            prepare_deepspeed(accelerator.state.deepspeed_plugin, options)

    def gather(self, wrapped: nn.Module) -> None:
        """Copy the current weights of the sharded copy to the student; all processes must call this."""
        if not self.is_on:
            return
        if self.kind == DistributedType.FSDP:
            state: Mapping[str, Any] = get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))
        else:
            state = fp32_state(cast(Any, wrapped).module)
        student = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
        self.student.to(self.device).load_state_dict(student)


def fp32_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state of a module under DeepSpeed with the optimizer's fp32 weights instead of rounded ones."""
    from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]

    state: dict[str, Tensor] = module.state_dict()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        weight = safe_get_full_fp32_param(parameter)
        state[name] = parameter if weight is None else weight
    return state


def prepare_fsdp(accelerator: Accelerator, objective: Objective) -> None:
    """Name the layer classes that FSDP wraps; accelerate reads them from the module that it is given, the objective.

    Unlike transformers' own lists, this one has layers only: embeddings are tied to the head.
    Raises DistilkitError for FSDP version 1.
    """
    if not accelerator.is_fsdp2:
        raise DistilkitError("FSDP version 1 is not supported: use --fsdp_version 2")
    layers = [objective.student.get_submodule(part) for layer in find_stack(objective.student).layers for part in layer]
    cast(Any, objective)._no_split_modules = sorted({type(layer).__name__ for layer in layers})  # noqa: SLF001


def prepare_deepspeed(plugin: Any, options: TrainOptions) -> None:
    """Configure DeepSpeed, which makes the update itself, with the run's batch size and gradient clipping.

    Raises DistilkitError for ZeRO stage 3.
    """
    if plugin.zero_stage > 2:
        raise DistilkitError("DeepSpeed's ZeRO stage 3 is not supported: use stage 2, or FSDP")
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": options.batch_size,
        "gradient_accumulation_steps": 1,  # the loop accumulates: it scales losses and marks the last micro-batch
        "gradient_clipping": options.max_grad_norm,
    }
