"""What fine-tuning minimises: a labelled task's loss, with or without a teacher that knows the task."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.distillation import losses
from distilkit.distillation.activations import Activations
from distilkit.distillation.layer_matching import LayerMatching
from distilkit.distillation.text_objective import NOTHING
from distilkit.encoders.forward import Batch, mean_by_row, required_inputs
from distilkit.training.objective import Objective, Shares


class TaskLoss(Objective):
    """A labelled task's loss, and beside it, where there is a teacher, how far the student is from its answers.

    Cross-entropy for classes, binary cross-entropy for each of several labels, squared error for a number, the mean of
    two cross-entropies for a span. From the teacher: soft targets for classes, labels and (the mean over start and end)
    spans, squared error to its number. The weights and the temperature are those of the authors' own second step of
    distillation (run_squad_w_distillation.py), where padding took a share of the probabilities, as it doesn't here.
    `inner` has weights for `hidden` and `attention`, which compare the layers that `layer_map` pairs, token by token
    (Alignment). `order` says which of the teacher's outputs stands for each of the student's, `prefix` how the names of
    its inputs begin in a batch where it has a tokenizer of its own.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        kind: str,
        inputs: Sequence[str],
        *,
        teacher: PreTrainedModel | None = None,
        teacher_inputs: Sequence[str] = (),
        prefix: str = "",
        order: Sequence[int] = (),
        alpha_task: float = 0.5,
        alpha_ce: float = 0.5,
        temperature: float = 2.0,
        inner: Mapping[str, float] | None = None,
        layer_map: Sequence[int] = (),
        hidden_loss: str = "mse",
    ) -> None:
        super().__init__(student, teacher)
        self.inner, self.alignment = {part: weight for part, weight in (inner or {}).items() if weight}, None
        if teacher and self.inner:
            self.alignment = LayerMatching(student, teacher, self.inner, layer_map, hidden_loss)
        self.kind, self.prefix = kind, prefix
        self.inputs, self.teacher_inputs, self.order = tuple(inputs), tuple(teacher_inputs), list(order)
        self.alpha_task, self.alpha_ce, self.temperature = alpha_task, alpha_ce, temperature

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return how many rows a batch has, however many windows they are cut into."""
        targets = batch["start_positions" if self.kind == "span" else "labels"]
        counts = {"rows": targets.new_tensor(len(targets)).float()}
        if self.alignment:
            mask, ids = batch.get("attention_mask"), batch["input_ids"]
            counts["tokens"] = counts["rows"].new_tensor(ids.numel()) if mask is None else mask.sum().float()
        return counts

    def ready(self, batch: Batch) -> Batch:
        """Add `tokens` (N,), the rows of the flattened batch that aren't padding, where hidden states are compared."""
        if not self.alignment or "attention_mask" not in batch:
            return batch
        return batch | {"tokens": batch["attention_mask"].flatten().nonzero().squeeze(-1)}

    def forward(self, batch: Batch, shares: Shares | None = None) -> dict[str, Tensor]:
        """Return task, ce (with a teacher) and their weighted sum for a batch: inputs (B, T), targets (B,) or (B, C).

        With owners (W,), inputs are windows (W, T), and a row's logits are the mean of its windows'.
        """
        batch = batch if "tokens" in batch else self.ready(batch)
        part = shares["rows"] if shares else 1.0  # of the update's rows
        with self._watch(self.student, 0) as ours:
            logits = self._logits(self.student, batch, self.inputs)
        task = self._task(logits, batch) * part
        if self.teacher is None:
            return {"loss": task, "task": task}
        with torch.no_grad(), self._watch(self.teacher, 1) as theirs:
            target = self._logits(self.teacher, batch, self.teacher_inputs, self.prefix)
        ce = self._distance(logits, target) * part
        loss, parts = self.alpha_task * task + self.alpha_ce * ce, {"task": task, "ce": ce}
        if self.alignment:
            alike = self.alignment.compare(ours, theirs, batch.get("tokens"), batch.get("attention_mask"))
            parts |= {name: value * (shares["tokens"] if shares else 1.0) for name, value in alike.items()}
            loss = loss + sum(weight * parts[name] for name, weight in self.inner.items())
        return {"loss": loss, **parts}

    def _watch(self, model: PreTrainedModel, side: int) -> AbstractContextManager[Activations]:
        return self.alignment.watch(model, side) if self.alignment else nullcontext(NOTHING)

    def _logits(self, model: PreTrainedModel, batch: Batch, names: tuple[str, ...], prefix: str = "") -> list[Tensor]:
        inputs = {name: batch[prefix + name] for name in names}
        output = model(**inputs, **required_inputs(model, inputs["input_ids"]))
        if self.kind != "span":
            logits, owners = output.logits.float(), batch.get(f"{prefix}owners")
            return [logits if owners is None else mean_by_row(logits, owners, len(batch["labels"]))]  # (B, C)
        ids, mask = inputs["input_ids"], batch.get(f"{prefix}attention_mask")  # FNet reads no mask
        padding = torch.zeros_like(ids, dtype=torch.bool) if mask is None else mask == 0  # (B, T)
        # not -inf, of which a divergence makes nan
        return [logits.float().masked_fill(padding, -1e4) for logits in (output.start_logits, output.end_logits)]

    def _task(self, logits: list[Tensor], batch: Batch) -> Tensor:
        if self.kind == "span":
            targets = (batch["start_positions"], batch["end_positions"])
            pair = [F.cross_entropy(part, target) for part, target in zip(logits, targets, strict=True)]
            return torch.stack(pair).mean()
        if self.kind == "regression":
            return F.mse_loss(logits[0].squeeze(1), batch["labels"].float())
        if self.kind == "multi-label":
            return F.binary_cross_entropy_with_logits(logits[0], batch["labels"].float())
        return F.cross_entropy(logits[0], batch["labels"])

    def _distance(self, logits: list[Tensor], target: list[Tensor]) -> Tensor:
        if self.kind == "regression":
            return F.mse_loss(logits[0], target[0])
        if self.kind == "multi-label":
            return losses.binary_kl(logits[0], target[0][:, self.order], self.temperature)
        if self.kind == "classification":
            target = [target[0][:, self.order]]
        pairs = zip(logits, target, strict=True)
        return torch.stack([losses.kl(student, teacher, self.temperature) for student, teacher in pairs]).mean()
