"""What to minimise: modules made of losses. A batch goes in, named losses come out, "loss" their weighted sum."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit import losses

Batch = dict[str, Tensor]


class MaskedLM(nn.Module):
    """Masked LM alone, without a teacher."""

    def __init__(self, student: PreTrainedModel) -> None:
        super().__init__()
        self.student = student

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean masked-LM loss of a batch: input_ids and labels (B, T), attention_mask where there is padding."""
        labels = batch["labels"].flatten()  # (B·T,)
        masked = (labels != -100).nonzero().squeeze(-1)  # (M,)
        _, logits = logits_at(self.student, _inputs(batch), masked)
        loss = losses.mlm(logits, labels[masked])
        return {"loss": loss, "mlm": loss}


class TripleLoss(nn.Module):
    """Soft-target cross-entropy + masked LM + cosine between last hidden states (Sanh et al. 2019, sections 2 and 3).

    With ce_positions "all" the soft targets are matched at every token that isn't padding, with "masked" only at the
    tokens to predict; the cosine is always taken at every token that isn't padding.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        *,
        alpha_ce: float = 5.0,
        alpha_mlm: float = 2.0,
        alpha_cos: float = 1.0,
        temperature: float = 2.0,
        ce_positions: str = "all",
    ) -> None:
        super().__init__()
        self.student = student
        self.alphas = {"ce": alpha_ce, "mlm": alpha_mlm, "cos": alpha_cos}
        self.temperature = temperature
        self.ce_positions = ce_positions
        # Not a submodule: it is neither trained nor wrapped nor saved in a checkpoint, but it moves with the student.
        self.__dict__["teacher"] = teacher.requires_grad_(False).eval()

    def _apply(self, fn: Any, recurse: bool = True) -> "TripleLoss":
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ce, mlm, cos and their weighted sum for a batch: input_ids and labels (B, T), attention_mask or none."""
        labels, inputs = batch["labels"].flatten(), _inputs(batch)  # (B·T,)
        tokens = inputs["attention_mask"].flatten().nonzero().squeeze(-1) if "attention_mask" in inputs else None
        rows = (labels != -100).nonzero().squeeze(-1) if self.ce_positions == "masked" else tokens
        with torch.no_grad():
            teacher_hidden, teacher_logits = logits_at(self.teacher, inputs, rows)
        hidden, logits = logits_at(self.student, inputs, rows)  # (B·T, H), (R, V)
        parts = {
            "ce": losses.kl(logits, teacher_logits, self.temperature),
            "mlm": losses.mlm(logits, take(labels, rows)),
            "cos": losses.cosine(take(hidden, tokens), take(teacher_hidden, tokens)),
        }
        return {"loss": sum((self.alphas[name] * part for name, part in parts.items()), labels.new_zeros(())), **parts}


def take(rows_of: Tensor, rows: Tensor | None) -> Tensor:
    """Return the rows asked for, all of them for None."""
    return rows_of if rows is None else rows_of[rows]


def logits_at(model: PreTrainedModel, inputs: Batch, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a masked-LM model with its vocabulary head at some rows of the flattened batch only (None: at all).

    Returns the last hidden state at every row (B·T, H) and the logits at the rows asked for (R, V). The body's output
    is narrowed on its way to the head by a hook, so any masked-LM class will do.
    """
    whole: list[Tensor] = []

    def narrow(module: nn.Module, args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state.flatten(0, 1)  # (B·T, H)
        whole.append(hidden)
        output.last_hidden_state = take(hidden, rows).unsqueeze(0)  # (1, R, H)
        return output

    hook = model.base_model.register_forward_hook(narrow)
    try:
        logits = model(**inputs).logits.squeeze(0)  # (R, V)
    finally:
        hook.remove()
    return whole[0], logits


def _inputs(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}
