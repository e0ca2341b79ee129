"""The interface between a loss and the training loop."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit.encoders.forward import Batch

Shares = Mapping[str, Tensor]


class Objective(nn.Module):
    """A student to train, and perhaps a teacher that is only asked.

    The teacher is not a submodule: it is neither trained nor wrapped nor saved in a checkpoint.
    """

    teacher: PreTrainedModel | None

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.student = student
        self.__dict__["teacher"] = None if teacher is None else teacher.requires_grad_(False).eval()

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return how many rows of a batch each part of the loss is a mean over, by part, or for all as "rows"."""
        first = next(iter(batch.values()))
        return {"rows": first.new_tensor(len(first)).float()}

    def ready(self, batch: Batch) -> Batch:
        """Add to a batch, on the CPU, what a GPU would have to be waited for."""
        return batch

    def progress(self, done: float) -> None:
        """Take note of the share of the run that is behind, from 0 to 1."""

    def place_teacher(self, device: torch.device, dtype: torch.dtype | None, *, whole: bool = False) -> None:
        """Move the teacher to a device, its matrices in the precision that autocast would cast them to at every step.

        `whole` is for where there is no autocast and the student computes in that precision throughout (FSDP).
        """
        if self.teacher is None:
            return
        nn.Module.to(self.teacher, device, dtype if whole else None)
        for module in self.teacher.modules() if dtype and not whole else ():
            if isinstance(module, nn.Linear):  # a copy where it is an embedding too, which autocast leaves alone
                for name, parameter in list(module.named_parameters(recurse=False)):
                    setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
