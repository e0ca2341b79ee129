"""The loss of `distill`: weighted loss terms on masked text, with a live or a cached teacher."""

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
from distilkit.distillation.presets import LOSS_TERMS, loss_weights
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
from distilkit.training.objective import Fractions, Objective


class ForwardResult(NamedTuple):
    """The outputs of one forward pass. The vocabulary head saw R of the B·T rows of the flattened batch."""

    last: Tensor  # last hidden states (B·T, H)
    head: Head | Tensor | None  # the inputs of the output layer, or logits (R, V), or None if not needed
    activations: Activations


class Distillation(Objective):
    """A weighted sum of loss terms on masked text.

    ce (soft targets), mlm and cos (last hidden states) form the triple loss of Sanh et al. 2019, sections 2 and 3.
    With ce_positions "all", ce is a mean over all tokens except padding, with "masked" over the masked tokens only.
    hidden, attention and relation compare the layers that `layer_map` pairs (LayerMatching).
    After the fraction `teacher_until` of the run only mlm remains, and the teacher is not run any more.
    Raises DistilkitError if the two models do not fit the loss terms.
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
        teacher_until: float = 1.0,
    ) -> None:
        self.weights = {term: weight for term, weight in weights.items() if weight}
        if teacher is not None and not self.weights.keys() & {"ce", "cos"}:
            # The layers above the highest one in layer_map would not be used.
            teacher = truncate_shared(teacher, range(max(layer_map) + 1))
        super().__init__(student, teacher)
        self.temperature, self.ce_positions, self.teacher_until = temperature, ce_positions, teacher_until
        self.uses_teacher = teacher is not None
        if teacher is not None:
            if "cos" in self.weights:
                check_equal_size("hidden_size", student, teacher)
            self.layer_matching = LayerMatching(student, teacher, self.weights, layer_map, hidden_loss)
            self.chunked = "ce" in self.weights and has_linear_output(student) and has_linear_output(teacher)

    def token_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return for each loss term the number of tokens it is a mean over: all but padding, or the masked ones."""
        _, tokens, targets = _split_batch(self, batch)
        masked_only = {"mlm", "ce"} if self.ce_positions == "masked" else {"mlm"}
        return {term: torch.tensor(float(len(targets if term in masked_only else tokens))) for term in self.weights}

    def prepare(self, batch: Batch) -> Batch:
        """Replace labels by `tokens` (N,), the rows of the flattened batch that are not padding, and `targets` (M,).

        The first M of the rows are the masked tokens, and `targets` are the tokens to predict there.
        """
        labels, mask = batch["labels"].flatten(), batch.get("attention_mask")
        masked = labels != -100
        others = ~masked if mask is None else ~masked & mask.flatten().bool()
        tokens = torch.cat([masked.nonzero(), others.nonzero()]).squeeze(-1)
        rest = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return rest | {"tokens": tokens, "targets": labels[masked]}

    def progress(self, done: float) -> None:
        """Stop using the teacher after its fraction of the run."""
        self.uses_teacher = self.teacher is not None and done < self.teacher_until

    def forward(self, batch: Batch, fractions: Fractions | None = None) -> dict[str, Tensor]:
        """Return `loss` and its terms for a batch, prepared or with input_ids, labels (B, T) and any attention_mask.

        `fractions` are this micro-batch's shares of the tokens of an update, by loss term. The terms are multiplied by
        them, so that the terms of all micro-batches add up to a mean over the update.
        """
        weights = self.weights if self.uses_teacher else {"mlm": self.weights["mlm"]}
        alphas = {term: weight * (fractions[term] if fractions else torch.ones(())) for term, weight in weights.items()}
        inputs, tokens, targets = _split_batch(self, batch)
        everywhere = "ce" in alphas and self.ce_positions == "all"
        rows = tokens if everywhere else tokens[: len(targets)]
        ours = self._forward(self.student, inputs, rows, weights)
        if self.teacher is None or not self.uses_teacher:
            total, terms = _prediction_losses(ours, None, targets, alphas, self.temperature)
        else:
            with torch.no_grad():
                theirs = self._forward(self.teacher, inputs, rows, weights)
            total, terms = _prediction_losses(ours, theirs, targets, alphas, self.temperature)
            mask = inputs.get("attention_mask")
            compared = self._compare(ours, theirs, None if mask is None else tokens, mask)
            total = total + sum(alphas[term] * value for term, value in compared.items())
            terms |= compared
        return {"loss": total} | {
            term: terms[term].detach() * (fractions[term] if fractions else 1) for term in weights
        }

    def _forward(
        self, model: PreTrainedModel, inputs: Batch, rows: Tensor | None, weights: Mapping[str, float]
    ) -> ForwardResult:
        """Run a model up to the outputs that these loss terms use."""
        side = 0 if model is self.student else 1
        recording = self.uses_teacher and self.teacher
        with self.layer_matching.record(model, side) if recording else nullcontext(Activations({}, {})) as recorded:
            if not weights.keys() & ({"ce"} if side else {"ce", "mlm"}):
                return ForwardResult(encoder_states(model, inputs), None, recorded)
            last, head = (head_inputs if self.uses_teacher and self.chunked else masked_lm_logits)(model, inputs, rows)
            return ForwardResult(last, head, recorded)

    def _compare(
        self, ours: ForwardResult, theirs: ForwardResult, tokens: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the loss terms that compare hidden states and attention."""
        terms = self.layer_matching.compare(ours.activations, theirs.activations, tokens, mask)
        if "cos" in self.weights:
            terms["cos"] = losses.cosine(select_rows(ours.last, tokens), select_rows(theirs.last, tokens))
        return terms


class CachedDistillation(Distillation):
    """ce and mlm at the masked tokens, with the teacher's predictions in the batch instead of a teacher.

    The predictions are the inputs of losses.kl_sampled: teacher_ids (M, K), sampled tokens, and teacher_values (M, 1),
    the entropy.
    """

    def __init__(
        self, student: PreTrainedModel, weights: Mapping[str, float], *, temperature: float, teacher_until: float
    ) -> None:
        super().__init__(
            student, None, weights, temperature=temperature, ce_positions="masked", teacher_until=teacher_until
        )
        self.uses_teacher = True

    def progress(self, done: float) -> None:
        """Stop using the teacher's predictions after their fraction of the run."""
        self.uses_teacher = done < self.teacher_until

    def forward(self, batch: Batch, fractions: Fractions | None = None) -> dict[str, Tensor]:
        """Return `loss` and its terms for a batch, as in Distillation."""
        weights = self.weights if self.uses_teacher else {"mlm": self.weights["mlm"]}
        inputs, tokens, targets = _split_batch(self, batch)
        ids, values = inputs.pop("teacher_ids"), inputs.pop("teacher_values")
        logits = masked_lm_logits(self.student, inputs, tokens[: len(targets)])[1]
        terms = {}
        if "ce" in weights:
            terms["ce"] = losses.kl_sampled(logits, ids, values.squeeze(1), self.temperature)
        if "mlm" in weights:
            terms["mlm"] = losses.mlm(logits, targets)
        terms = {term: value * (fractions[term] if fractions else 1) for term, value in terms.items()}
        total = torch.stack([weights[term] * value for term, value in terms.items()]).sum()
        return {"loss": total} | {term: value.detach() for term, value in terms.items()}


def _split_batch(objective: Objective, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
    """Return the model inputs, the tokens and the targets of a batch, which is prepared first if necessary."""
    batch = dict(batch) if "targets" in batch else objective.prepare(batch)
    return batch, batch.pop("tokens"), batch.pop("targets")


def _prediction_losses(
    ours: ForwardResult, theirs: ForwardResult | None, targets: Tensor, alphas: Fractions, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of ce and mlm, as far as they have a weight, and both terms."""
    if isinstance(ours.head, Head) and theirs is not None:
        zero = torch.zeros(())
        total, ce, mlm = kl_and_mlm(
            ours.head, cast(Head, theirs.head), targets, temperature, alphas["ce"], alphas.get("mlm", zero)
        )
        return total, {"ce": ce, "mlm": mlm}
    terms: dict[str, Tensor] = {}
    if "ce" in alphas and theirs is not None:
        terms["ce"] = losses.kl(cast(Tensor, ours.head), cast(Tensor, theirs.head), temperature)
    if "mlm" in alphas:
        terms["mlm"] = losses.mlm(cast(Tensor, ours.head)[: len(targets)], targets)
    return sum((alphas[term] * value for term, value in terms.items()), ours.last.new_zeros(())), terms


def make_objective(options: DistillOptions, student: PreTrainedModel, teacher: PreTrainedModel | None) -> Distillation:
    """Build the loss that --objective and the --alpha options describe."""
    weights = loss_weights(options)
    if options.mask_probability == 0 and ("mlm" in weights or options.ce_positions == "masked"):
        raise DistilkitError(
            "with --mask-probability 0 no token is masked: raise it, or set --alpha-mlm 0 and --ce-positions all"
        )
    if options.ce_until < 1 and "mlm" not in weights:
        raise DistilkitError("--ce-until requires a masked-LM loss: set --alpha-mlm above 0")
    if options.teacher_cache:
        check_cacheable(weights)
        return CachedDistillation(student, weights, temperature=options.temperature, teacher_until=options.ce_until)
    return Distillation(
        student,
        teacher,
        weights,
        temperature=options.temperature,
        ce_positions=options.ce_positions,
        layer_map=() if teacher is None else map_layers(options.layer_map, student, teacher),
        hidden_loss=options.hidden_loss,
        teacher_until=options.ce_until,
    )


def check_cacheable(terms: Collection[str]) -> None:
    """Raise DistilkitError if a loss term needs more than the teacher's predictions, which are all a cache stores."""
    if "ce" not in terms:
        raise DistilkitError(
            "--teacher-cache requires the soft-target loss: set --alpha-ce above 0, or remove --teacher-cache"
        )
    if other := [term for term in LOSS_TERMS if term in terms and term not in ("ce", "mlm")]:
        raise DistilkitError(
            f"--teacher-cache does not store what the loss term {other[0]} needs: set --alpha-{other[0]} 0"
        )
