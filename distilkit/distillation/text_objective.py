"""What to minimise: modules made of losses. A batch goes in, named losses come out, "loss" their weighted sum."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.distillation import losses
from distilkit.distillation.activations import Activations
from distilkit.distillation.fused_loss import kl_and_mlm
from distilkit.distillation.layer_matching import LayerMatching, check_equal_size, map_layers
from distilkit.encoders.forward import (
    Batch,
    Head,
    encoder_states,
    has_linear_output,
    head_inputs,
    masked_lm_logits,
    select_rows,
)
from distilkit.encoders.layers import truncate_shared
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.training.objective import Objective, Shares

WEIGHTS = {  # of the parts, by the name of an objective
    "triple": {"ce": 5.0, "mlm": 2.0, "cos": 1.0},  # Sanh et al. 2019; the weights: transformers issue 2013
    "mlm": {"mlm": 1.0},
    "hidden": {"hidden": 1.0},
    "attention": {"attention": 1.0, "hidden": 1.0},  # as TinyBERT's general distillation
    "minilm": {"relation": 1.0},
}
PARTS = ("ce", "mlm", "cos", "hidden", "attention", "relation")
NOTHING = Activations({}, {})


class ForwardResult(NamedTuple):
    """What one forward pass of a model gave: R of the batch's B·T rows reached the vocabulary head."""

    last: Tensor  # (B·T, H)
    head: Head | Tensor | None  # what logits are computed from, or logits (R, V)
    inside: Activations


class Distillation(Objective):
    """A weighted sum of losses on masked text: masked LM, and what makes a student like its teacher.

    ce (soft targets), mlm and cos (last hidden states) are the triple loss of Sanh et al. 2019, sections 2 and 3; with
    ce_positions "all" the soft targets are matched at every token that isn't padding, with "masked" only at the tokens
    to predict. hidden, attention and relation compare layers that `layer_map` pairs (Alignment).
    After the share `until` of the run only masked LM is left, and the teacher isn't asked any more.
    Raises DistilkitError where the two models don't fit the parts.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        weights: Mapping[str, float],
        *,
        temperature: float = 2.0,
        ce_positions: str = "all",
        layer_map: Sequence[int] = (),
        hidden_loss: str = "mse",
        until: float = 1.0,
    ) -> None:
        self.weights = {part: weight for part, weight in weights.items() if weight}
        if teacher is not None and not self.weights.keys() & {"ce", "cos"}:
            teacher = truncate_shared(teacher, range(max(layer_map) + 1))  # no further than it is looked at
        super().__init__(student, teacher)
        self.temperature, self.ce_positions, self.until = temperature, ce_positions, until
        self.asking = teacher is not None
        if teacher is not None:
            if "cos" in self.weights:
                check_equal_size("hidden_size", student, teacher)
            self.alignment = LayerMatching(student, teacher, self.weights, layer_map, hidden_loss)
            self.chunked = "ce" in self.weights and has_linear_output(student) and has_linear_output(teacher)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return how many rows of a batch each part is a mean over: its tokens but padding, or those to predict."""
        _, tokens, targets = _open(self, batch)
        few = {"mlm", "ce"} if self.ce_positions == "masked" else {"mlm"}
        return {part: torch.tensor(float(len(targets if part in few else tokens))) for part in self.weights}

    def ready(self, batch: Batch) -> Batch:
        """Replace labels by `tokens` (N,), the rows of the flattened batch that aren't padding, and `targets` (M,).

        The first M rows are those to predict, `targets` the tokens there.
        """
        labels, mask = batch["labels"].flatten(), batch.get("attention_mask")
        chosen = labels != -100
        others = ~chosen if mask is None else ~chosen & mask.flatten().bool()
        tokens = torch.cat([chosen.nonzero(), others.nonzero()]).squeeze(-1)
        rest = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return rest | {"tokens": tokens, "targets": labels[chosen]}

    def progress(self, done: float) -> None:
        """Stop asking the teacher where its share of the run is behind."""
        self.asking = self.teacher is not None and done < self.until

    def forward(self, batch: Batch, shares: Shares | None = None) -> dict[str, Tensor]:
        """Return each part and their weighted sum for a batch: input_ids, labels (B, T), attention_mask or none,
        or what ready() made of it.

        `shares` multiplies the parts: what this batch's rows are of all that an update is the mean over.
        """
        weights = self.weights if self.asking else {"mlm": self.weights["mlm"]}
        alphas = {part: weight * (shares[part] if shares else torch.ones(())) for part, weight in weights.items()}
        inputs, tokens, targets = _open(self, batch)
        everywhere = "ce" in alphas and self.ce_positions == "all"
        rows = tokens if everywhere else tokens[: len(targets)]
        ours = self._look(self.student, inputs, rows, weights)
        if self.teacher is None or not self.asking:
            total, parts = _predict(ours, None, targets, alphas, self.temperature)
        else:
            with torch.no_grad():
                theirs = self._look(self.teacher, inputs, rows, weights)
            total, parts = _predict(ours, theirs, targets, alphas, self.temperature)
            mask = inputs.get("attention_mask")
            alike = self._compare(ours, theirs, None if mask is None else tokens, mask)
            total = total + sum(alphas[part] * value for part, value in alike.items())
            parts |= alike
        return {"loss": total} | {part: parts[part].detach() * (shares[part] if shares else 1) for part in weights}

    def _look(
        self, model: PreTrainedModel, inputs: Batch, rows: Tensor | None, weights: Mapping[str, float]
    ) -> ForwardResult:
        """Run a model as far as those parts need it."""
        side = 0 if model is self.student else 1
        with self.alignment.watch(model, side) if self.asking and self.teacher else nullcontext(NOTHING) as inside:
            if not weights.keys() & ({"ce"} if side else {"ce", "mlm"}):
                return ForwardResult(encoder_states(model, inputs), None, inside)
            last, head = (head_inputs if self.asking and self.chunked else masked_lm_logits)(model, inputs, rows)
            return ForwardResult(last, head, inside)

    def _compare(
        self, ours: ForwardResult, theirs: ForwardResult, tokens: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the parts that compare hidden states and what goes on inside the two models."""
        parts = self.alignment.compare(ours.inside, theirs.inside, tokens, mask)
        if "cos" in self.weights:
            parts["cos"] = losses.cosine(select_rows(ours.last, tokens), select_rows(theirs.last, tokens))
        return parts


class CachedDistillation(Distillation):
    """ce and mlm at the masked tokens, with the teacher's answers in the batch.

    These are what losses.kl_sampled takes: teacher_ids (M, K), sampled tokens, and teacher_values (M, 1), the entropy.
    """

    def __init__(
        self, student: PreTrainedModel, weights: Mapping[str, float], *, temperature: float, until: float
    ) -> None:
        super().__init__(student, None, weights, temperature=temperature, ce_positions="masked", until=until)
        self.asking = True

    def progress(self, done: float) -> None:
        """Leave the teacher's answers alone where their share of the run is behind."""
        self.asking = done < self.until

    def forward(self, batch: Batch, shares: Shares | None = None) -> dict[str, Tensor]:
        """Return each part and their weighted sum for a batch, as Distillation does."""
        weights = self.weights if self.asking else {"mlm": self.weights["mlm"]}
        inputs, tokens, targets = _open(self, batch)
        ids, values = inputs.pop("teacher_ids"), inputs.pop("teacher_values")
        logits = masked_lm_logits(self.student, inputs, tokens[: len(targets)])[1]
        parts = {}
        if "ce" in weights:
            parts["ce"] = losses.kl_sampled(logits, ids, values.squeeze(1), self.temperature)
        if "mlm" in weights:
            parts["mlm"] = losses.mlm(logits, targets)
        parts = {part: value * (shares[part] if shares else 1) for part, value in parts.items()}
        total = torch.stack([weights[part] * value for part, value in parts.items()]).sum()
        return {"loss": total} | {part: value.detach() for part, value in parts.items()}


def _open(objective: Objective, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
    """Return a batch's inputs, and its tokens and targets as Distillation.ready() puts them."""
    batch = dict(batch) if "targets" in batch else objective.ready(batch)
    return batch, batch.pop("tokens"), batch.pop("targets")


def _predict(
    ours: ForwardResult, theirs: ForwardResult | None, targets: Tensor, alphas: Shares, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of ce and mlm, as far as they are asked for, and both."""
    if isinstance(ours.head, Head) and theirs is not None:
        zero = torch.zeros(())
        total, ce, mlm = kl_and_mlm(
            ours.head, cast(Head, theirs.head), targets, temperature, alphas["ce"], alphas.get("mlm", zero)
        )
        return total, {"ce": ce, "mlm": mlm}
    parts: dict[str, Tensor] = {}
    if "ce" in alphas and theirs is not None:
        parts["ce"] = losses.kl(cast(Tensor, ours.head), cast(Tensor, theirs.head), temperature)
    if "mlm" in alphas:
        parts["mlm"] = losses.mlm(cast(Tensor, ours.head)[: len(targets)], targets)
    return sum((alphas[part] * value for part, value in parts.items()), ours.last.new_zeros(())), parts


def make_objective(config: DistillOptions, student: PreTrainedModel, teacher: PreTrainedModel | None) -> Distillation:
    """Build what --objective and the weights ask for."""
    given = {part: getattr(config, f"alpha_{part}") for part in PARTS}
    weights = WEIGHTS[config.objective] | {part: weight for part, weight in given.items() if weight is not None}
    asked = {part for part, weight in weights.items() if weight}
    if not asked:
        raise DistilkitError("every weight of the loss is 0, nothing to learn: raise an --alpha")
    if config.objective == "mlm" and asked != {"mlm"}:
        raise DistilkitError(f"--objective mlm has no teacher for {', '.join(sorted(asked - {'mlm'}))}: choose another")
    if config.ce_until < 1 and "mlm" not in asked:
        raise DistilkitError("--ce-until leaves masked LM alone, which has no weight: give --alpha-mlm")
    if config.teacher_cache:
        check_cacheable(asked)
        return CachedDistillation(student, weights, temperature=config.temperature, until=config.ce_until)
    return Distillation(
        student,
        teacher,
        weights,
        temperature=config.temperature,
        ce_positions=config.ce_positions,
        layer_map=() if teacher is None else map_layers(config.layer_map, student, teacher),
        hidden_loss=config.hidden_loss,
        until=config.ce_until,
    )


def check_cacheable(parts: Collection[str]) -> None:
    """Refuse a --teacher-cache for losses that need more of the teacher than its answers at masked tokens."""
    if "ce" not in parts:
        raise DistilkitError("without soft targets there are no answers to keep: leave out --teacher-cache")
    if other := [part for part in PARTS if part in parts and part not in ("ce", "mlm")]:
        raise DistilkitError(f"--teacher-cache keeps nothing that {other[0]} needs: give --alpha-{other[0]} 0")
