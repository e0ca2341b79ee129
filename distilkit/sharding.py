"""Weights of which every process holds a part (FSDP, as accelerate is told to), and the student that stays whole."""

import copy
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from distilkit.errors import DistilkitError
from distilkit.objectives import Objective
from distilkit.progress import warn
from distilkit.stack import find_stack


class Sharding:
    """Stands between a student, which is read and saved as any other, and the copy of it that the processes share out.

    Without FSDP there is no copy: the student itself is trained.
    Raises DistilkitError for ways of cutting up a model that the training loop can't be trusted with.
    """

    def __init__(self, accelerator: Accelerator, objective: Objective) -> None:
        self.is_on = accelerator.distributed_type == DistributedType.FSDP
        self.student, self.device = objective.student, accelerator.device
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise DistilkitError("DeepSpeed makes its own updates, not distilkit's: use FSDP (--use_fsdp)")
        if parse_flag_from_env("ACCELERATE_USE_FSDP") and not self.is_on:
            warn("accelerate has FSDP for several accelerators only: every process trains all of the weights")
        if self.is_on and not accelerator.is_fsdp2:
            raise DistilkitError("FSDP's first version cuts through the loss's own view of a model: --fsdp_version 2")
        if self.is_on:
            objective.student = copy.deepcopy(self.student)
            # What accelerate's transformer policy wraps: it asks the module that it is given, which is the objective.
            # Only layers, not what transformers names beside them: embeddings are tied to the head, outside of them.
            layers = [self.student.get_submodule(part) for layer in find_stack(self.student).layers for part in layer]
            cast(Any, objective)._no_split_modules = sorted({type(layer).__name__ for layer in layers})  # noqa: SLF001

    def gather(self, wrapped: nn.Module) -> None:
        """Give the student the weights that the processes hold parts of; all of them have to call this."""
        if self.is_on:
            state = get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))
            prefix = "student."
            self.student.to(self.device).load_state_dict(
                {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            )
