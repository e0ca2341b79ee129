"""Objective: the interface between a loss and the training loop."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit.encoders.forward import Batch

Fractions = Mapping[str, Tensor]  # by loss term: a micro-batch's share of the update's tokens


class Objective(nn.Module):
    """A student to train, with an optional teacher.

    The teacher is frozen and is not a submodule: wrappers and checkpoints do not contain it.
    """

    teacher: PreTrainedModel | None
    modules_to_save = ""  # what is saved with the student and trained beside it

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.student = student
        self.__dict__["teacher"] = None if teacher is None else teacher.requires_grad_(False).eval()

    def token_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of tokens or rows that each loss term averages over; "rows" stands for all terms."""
        first = next(iter(batch.values()))
        return {"rows": first.new_tensor(len(first)).float()}

    def prepare(self, batch: Batch) -> Batch:
        """Prepare a batch on the CPU so that the update needs no GPU synchronisation."""
        return batch

    def progress(self, done: float) -> None:
        """Receive the completed share of the run, from 0 to 1, before each update."""

    def place_teacher(self, device: torch.device, dtype: torch.dtype | None, *, whole: bool = False) -> None:
        """Move the teacher to a device and cast its linear layers to the autocast dtype, once instead of at every step.

        With `whole`, cast all of the teacher: under FSDP there is no autocast and the student runs in that dtype.
        """
        if self.teacher is None:
            return
        nn.Module.to(self.teacher, device, dtype if whole else None)
        for module in self.teacher.modules() if dtype and not whole else ():
            # A new parameter: a weight tied to an embedding stays in fp32 there, since autocast skips embeddings.
            if isinstance(module, nn.Linear):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
