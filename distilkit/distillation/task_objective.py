"""The loss of `finetune`: a labelled task's loss, optionally with a teacher fine-tuned on the same task."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.distillation import losses
from distilkit.distillation.activations import Activations
from distilkit.distillation.layer_matching import LayerMatching
from distilkit.encoders.forward import Batch, mean_over_windows, required_inputs
from distilkit.tasks.tagging import LOST, PLACES, TAGS
from distilkit.training.objective import Fractions, Objective

TARGETS = {"span": "start_positions", "tokens": TAGS}
PADDING_LOGIT = -1e4  # Not -inf: the KL divergence of two -inf logits is NaN.


class TaskLoss(Objective):
    """The loss on the labels and, with a teacher, the distance from the teacher's outputs.

    | kind           | loss on labels                  | loss against the teacher                  |
    |----------------|---------------------------------|-------------------------------------------|
    | classification | cross-entropy                   | KL, with temperature                      |
    | multi-label    | binary cross-entropy            | binary KL, with temperature               |
    | regression     | squared error                   | squared error                             |
    | span           | cross-entropy, mean of two ends | KL, with temperature, mean of two ends    |
    | tokens         | cross-entropy, mean over words  | KL, with temperature, mean over words     |

    The default weights and temperature are those of DistilBERT's script for SQuAD (run_squad_w_distillation.py).
    Unlike there, padding takes no share of the probabilities of a span.
    `layer_weights` weighs the terms `hidden` and `attention`, which compare the layers in `layer_map` token by token.
    `order` gives the teacher's output for each of the student's. `prefix` begins the names of the teacher's inputs in a
    batch if the teacher has a tokenizer of its own. `class_weights` (C,) weigh the rows of each class in the
    cross-entropy, whose mean is over rows, not over weights.
    """

    class_weights: Tensor | None

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
        layer_weights: Mapping[str, float] | None = None,
        layer_map: Sequence[int] = (),
        hidden_loss: str = "mse",
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(student, teacher)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.layer_weights = {term: weight for term, weight in (layer_weights or {}).items() if weight}
        self.layer_matching = None
        if teacher and self.layer_weights:
            self.layer_matching = LayerMatching(student, teacher, self.layer_weights, layer_map, hidden_loss)
        self.kind, self.prefix = kind, prefix
        self.inputs, self.teacher_inputs, self.order = tuple(inputs), tuple(teacher_inputs), list(order)
        self.alpha_task, self.alpha_ce, self.temperature = alpha_task, alpha_ce, temperature

    def token_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of `rows` (not of windows) and, if layers are compared, of `tokens` without padding.

        For a token task, `rows` are the words that have a token.
        """
        targets = batch[TARGETS.get(self.kind, "labels")]
        words = (batch[PLACES] != LOST).sum().clamp(min=1) if self.kind == "tokens" else None
        counts = {"rows": (targets.new_tensor(len(targets)) if words is None else words).float()}
        if self.layer_matching:
            mask, ids = batch.get("attention_mask"), batch["input_ids"]
            counts["tokens"] = counts["rows"].new_tensor(ids.numel()) if mask is None else mask.sum().float()
        return counts

    def prepare(self, batch: Batch) -> Batch:
        """Add `tokens` (N,), the rows of the flattened batch that are not padding, if layers are compared."""
        if not self.layer_matching or "attention_mask" not in batch:
            return batch
        return batch | {"tokens": batch["attention_mask"].flatten().nonzero().squeeze(-1)}

    def forward(self, batch: Batch, fractions: Fractions | None = None) -> dict[str, Tensor]:
        """Return `loss` and its terms for a batch of inputs (B, T) and targets (B,) or (B, C).

        Targets of a token task are tags of words (B, W), with `places` (B, W), the first token of each word.
        Terms are `task` and, with a teacher, `ce` and those of `layer_weights`. A batch with `owners` (W,) has windows
        (W, T) as inputs. The logits of a row are then the mean over its windows. `fractions` are this micro-batch's
        shares of the rows and tokens of an update.
        """
        batch = batch if "tokens" in batch else self.prepare(batch)
        row_fraction = fractions["rows"] if fractions else 1.0
        with self._record(self.student, 0) as ours:
            logits = self._logits(self.student, batch, self.inputs)
        task = self._task_loss(logits, batch) * row_fraction
        if self.teacher is None:
            return {"loss": task, "task": task}
        with torch.no_grad(), self._record(self.teacher, 1) as theirs:
            target = self._logits(self.teacher, batch, self.teacher_inputs, self.prefix)
        ce = self._teacher_loss(logits, target, batch) * row_fraction
        loss, terms = self.alpha_task * task + self.alpha_ce * ce, {"task": task, "ce": ce}
        if self.layer_matching:
            compared = self.layer_matching.compare(ours, theirs, batch.get("tokens"), batch.get("attention_mask"))
            token_fraction = fractions["tokens"] if fractions else 1.0
            terms |= {name: value * token_fraction for name, value in compared.items()}
            loss = loss + sum(weight * terms[name] for name, weight in self.layer_weights.items())
        return {"loss": loss, **terms}

    def _record(self, model: PreTrainedModel, side: int) -> AbstractContextManager[Activations]:
        return self.layer_matching.record(model, side) if self.layer_matching else nullcontext(Activations({}, {}))

    def _logits(self, model: PreTrainedModel, batch: Batch, names: tuple[str, ...], prefix: str = "") -> list[Tensor]:
        """Return the logits (B, C), of words (B, W, C), or of start and end (B, T), very low at padding."""
        inputs = {name: batch[prefix + name] for name in names}
        output = model(**inputs, **required_inputs(model, inputs["input_ids"]))
        if self.kind == "tokens":
            places = batch[prefix + PLACES].clamp(min=0).unsqueeze(2)  # (B, W, 1)
            return [output.logits.float().take_along_dim(places, dim=1)]
        if self.kind != "span":
            logits, owners = output.logits.float(), batch.get(f"{prefix}owners")
            return [logits if owners is None else mean_over_windows(logits, owners, len(batch["labels"]))]
        ids, mask = inputs["input_ids"], batch.get(f"{prefix}attention_mask")  # FNet has no attention mask.
        padding = torch.zeros_like(ids, dtype=torch.bool) if mask is None else mask == 0  # (B, T)
        ends = (output.start_logits, output.end_logits)
        return [logits.float().masked_fill(padding, PADDING_LOGIT) for logits in ends]

    def _task_loss(self, logits: list[Tensor], batch: Batch) -> Tensor:
        if self.kind == "tokens":
            words = batch[PLACES] != LOST  # (B, W)
            summed = F.cross_entropy(logits[0][words], batch[TAGS][words], reduction="sum")
            return summed / words.sum().clamp(min=1)
        if self.kind == "span":
            targets = (batch["start_positions"], batch["end_positions"])
            each = [F.cross_entropy(end, target) for end, target in zip(logits, targets, strict=True)]
            return torch.stack(each).mean()
        if self.kind == "regression":
            return F.mse_loss(logits[0].squeeze(1), batch["labels"].float())
        if self.kind == "multi-label":
            return F.binary_cross_entropy_with_logits(logits[0], batch["labels"].float())
        return F.cross_entropy(logits[0], batch["labels"], weight=self.class_weights, reduction="none").mean()

    def _teacher_loss(self, logits: list[Tensor], target: list[Tensor], batch: Batch) -> Tensor:
        if self.kind == "tokens":
            words = (batch[PLACES] != LOST) & (batch[self.prefix + PLACES] != LOST)  # (B, W)
            ours, theirs = logits[0][words], target[0][words][:, self.order]
            return losses.kl(ours, theirs, self.temperature) if len(ours) else ours.sum()
        if self.kind == "regression":
            return F.mse_loss(logits[0], target[0])
        if self.kind == "multi-label":
            return losses.binary_kl(logits[0], target[0][:, self.order], self.temperature)
        if self.kind == "classification":
            target = [target[0][:, self.order]]
        pairs = zip(logits, target, strict=True)
        return torch.stack([losses.kl(student, teacher, self.temperature) for student, teacher in pairs]).mean()
