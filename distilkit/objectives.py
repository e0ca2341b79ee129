"""What to minimise: modules made of losses. A batch goes in, named losses come out, "loss" their weighted sum."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit import losses

Batch = dict[str, Tensor]

# Inputs without which some forwards do not run, by name (X-MOD: a language for each sequence; the first one here).
NEEDED: dict[str, Callable[[Tensor], Tensor]] = {
    "lang_ids": lambda ids: torch.zeros(len(ids), dtype=torch.long, device=ids.device)
}


class Objective(nn.Module):
    """A student to train, and perhaps a teacher that is only asked.

    The teacher is not a submodule: it is neither trained nor wrapped nor saved in a checkpoint, but it moves along.
    """

    teacher: PreTrainedModel | None

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.student = student
        self.__dict__["teacher"] = None if teacher is None else teacher.requires_grad_(False).eval()

    def _apply(self, fn: Any, recurse: bool = True) -> "Objective":
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)  # noqa: SLF001 - nn.Module has no other way to follow .to()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class MaskedLM(Objective):
    """Masked LM alone, without a teacher."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean masked-LM loss of a batch: input_ids and labels (B, T), attention_mask or none."""
        labels = batch["labels"].flatten()  # (B·T,)
        masked = (labels != -100).nonzero().squeeze(-1)  # (M,)
        _, logits = logits_at(self.student, _inputs(batch), masked)
        loss = losses.mlm(logits, labels[masked])
        return {"loss": loss, "mlm": loss}


class TripleLoss(Objective):
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
        super().__init__(student, teacher)
        self.alphas = (alpha_ce, alpha_mlm, alpha_cos)
        self.temperature = temperature
        self.ce_positions = ce_positions
        self.chunked = ends_in_linear(student) and ends_in_linear(teacher)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ce, mlm, cos and their weighted sum for a batch: input_ids, labels (B, T), attention_mask or none."""
        labels, inputs = batch["labels"].flatten(), _inputs(batch)  # (B·T,)
        tokens = inputs["attention_mask"].flatten().nonzero().squeeze(-1) if "attention_mask" in inputs else None
        rows = (labels != -100).nonzero().squeeze(-1) if self.ce_positions == "masked" else tokens
        teacher, targets = cast(PreTrainedModel, self.teacher), take(labels, rows)
        if self.chunked:
            with torch.no_grad():
                teacher_hidden, theirs = head_at(teacher, inputs, rows)
            hidden, ours = head_at(self.student, inputs, rows)  # (B·T, H), heads of R rows
            total, ce, mlm = losses.kl_and_mlm(ours, theirs, targets, self.temperature, *self.alphas[:2])
        else:
            with torch.no_grad():
                teacher_hidden, wanted = logits_at(teacher, inputs, rows)  # (B·T, H), (R, V)
            hidden, logits = logits_at(self.student, inputs, rows)
            ce, mlm = losses.kl(logits, wanted, self.temperature), losses.mlm(logits, targets)
            total = self.alphas[0] * ce + self.alphas[1] * mlm
        if not self.alphas[2]:  # the widths may differ
            return {"loss": total, "ce": ce, "mlm": mlm}
        cos = losses.cosine(take(hidden, tokens), take(teacher_hidden, tokens))
        return {"loss": total + self.alphas[2] * cos, "ce": ce, "mlm": mlm, "cos": cos}


def take(rows_of: Tensor, rows: Tensor | None) -> Tensor:
    """Return the rows asked for, all of them for None."""
    return rows_of if rows is None else rows_of[rows]


def logits_at(model: PreTrainedModel, inputs: Batch, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a masked-LM model with its vocabulary head at some rows of the flattened batch only (None: at all).

    Returns the last hidden state at every row (B·T, H) and the logits at the rows asked for (R, V). The body's output
    is narrowed on its way to the head by a hook, so any masked-LM class will do.
    """
    whole: list[Tensor] = []

    def narrow(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state.flatten(0, 1)  # (B·T, H)
        whole.append(hidden)
        output.last_hidden_state = take(hidden, rows).unsqueeze(0)  # (1, R, H)
        return output

    hook = model.base_model.register_forward_hook(narrow)
    try:
        logits = model(**inputs, **needed_inputs(model, inputs["input_ids"])).logits.squeeze(0)  # (R, V)
    finally:
        hook.remove()
    return whole[0], logits


def head_at(model: PreTrainedModel, inputs: Batch, rows: Tensor | None) -> tuple[Tensor, losses.Head]:
    """Run a masked-LM model up to the last layer of its vocabulary head, at some rows only.

    Returns the last hidden state at every row (B·T, H), and what the logits at the rows asked for are computed from.
    """
    last = cast(nn.Linear, model.get_output_embeddings())
    features: list[Tensor] = []

    def divert(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features.append(args[0].squeeze(0))  # (R, H)
        return (args[0][:, :1],)

    hook = last.register_forward_pre_hook(divert)
    try:
        hidden, _ = logits_at(model, inputs, rows)
    finally:
        hook.remove()
    return hidden, losses.Head(features[0], last.weight, last.bias)


@torch.no_grad()
def ends_in_linear(model: PreTrainedModel) -> bool:
    """Say whether head_at() gives all that a model's logits are made of; MobileBERT's and ESM's heads add to it."""
    training, device = model.training, next(model.parameters()).device
    inputs = {"input_ids": torch.arange(8, device=device).unsqueeze(0)}
    model.eval()
    try:
        features, weight, bias = head_at(model, inputs, None)[1]
        same = torch.allclose(F.linear(features, weight, bias), logits_at(model, inputs, None)[1], atol=1e-4)
    except (AttributeError, IndexError):  # no last layer, or one that isn't called
        same = False
    model.train(training)
    return same


def needed_inputs(model: PreTrainedModel, input_ids: Tensor) -> Batch:
    """Return the inputs, made up from token ids (B, T), without which a model would not run."""
    if getattr(model.config, "default_language", "") is not None:
        return {}
    accepted = {name for part in (model, model.base_model) for name in inspect.signature(part.forward).parameters}
    return {name: make(input_ids) for name, make in NEEDED.items() if name in accepted}


def _inputs(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


class TaskLoss(Objective):
    """A labelled task's loss, and beside it, where there is a teacher, how far the student is from its answers.

    Cross-entropy for classes, binary cross-entropy for each of several labels, squared error for a number, the mean of
    two cross-entropies for a span. From the teacher: soft targets for classes, labels and (the mean over start and end)
    spans, squared error to its number. The weights and the temperature are those of the authors' own second step of
    distillation (run_squad_w_distillation.py), where padding took a share of the probabilities, as it doesn't here.
    `order` says which of the teacher's outputs stands for each of the student's, `prefix` how the names of its inputs
    begin in a batch where it has a tokenizer of its own.
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
    ) -> None:
        super().__init__(student, teacher)
        self.kind, self.prefix = kind, prefix
        self.inputs, self.teacher_inputs, self.order = tuple(inputs), tuple(teacher_inputs), list(order)
        self.alpha_task, self.alpha_ce, self.temperature = alpha_task, alpha_ce, temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return task, ce (with a teacher) and their weighted sum for a batch: inputs (B, T), targets (B,) or (B, C).

        With owners (W,), inputs are windows (W, T), and a row's logits are the mean of its windows'.
        """
        logits = self._logits(self.student, batch, self.inputs)
        task = self._task(logits, batch)
        if self.teacher is None:
            return {"loss": task, "task": task}
        with torch.no_grad():
            target = self._logits(self.teacher, batch, self.teacher_inputs, self.prefix)
        ce = self._distance(logits, target)
        return {"loss": self.alpha_task * task + self.alpha_ce * ce, "task": task, "ce": ce}

    def _logits(self, model: PreTrainedModel, batch: Batch, names: tuple[str, ...], prefix: str = "") -> list[Tensor]:
        inputs = {name: batch[prefix + name] for name in names}
        output = model(**inputs, **needed_inputs(model, inputs["input_ids"]))
        if self.kind != "span":
            logits, owners = output.logits.float(), batch.get(f"{prefix}owners")
            return [logits if owners is None else losses.mean_by_row(logits, owners, len(batch["labels"]))]  # (B, C)
        padding = batch["attention_mask"] == 0  # (B, T)
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
