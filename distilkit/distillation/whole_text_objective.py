"""The loss of `distill` on whole texts, with nothing masked: sentence embeddings, or the outputs of a head."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit.distillation import losses
from distilkit.distillation.layer_matching import LayerMatching
from distilkit.encoders.forward import Batch, encoder_states, input_names, required_inputs, select_rows
from distilkit.encoders.sentence import SentenceEncoder, mean_cosine, neighbour_overlap
from distilkit.encoders.sentence_modules import SentenceHead
from distilkit.training.objective import Fractions, Objective

BY_ROWS = ("ce", "embedding", "similarity")  # terms that are means over texts; the others are means over tokens


class WholeTextDistillation(Objective):
    """A weighted sum of loss terms that compare the outputs of two models for a text, and their layers.

    The student trains without dropout: its targets are exact, and it approaches them more slowly with dropout.
    If the teacher has another tokenizer, the names of its inputs in a batch begin with `prefix`, and layers cannot be
    compared.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        weights: Mapping[str, float],
        *,
        prefix: str = "",
        layer_map: Sequence[int] = (),
        hidden_loss: str = "mse",
    ) -> None:
        super().__init__(student, teacher)
        self.weights, self.prefix = dict(weights), prefix
        self.inputs = tuple(input_names(cast(PreTrainedModel, model.base_model)) for model in (student, teacher))
        self.layer_matching = LayerMatching(student, teacher, self.weights, layer_map, hidden_loss)

    @abstractmethod
    def outputs(self, side: int, batch: Batch) -> Tensor:
        """Return the outputs of the student (side 0) or the teacher (1): (B, D) for texts, (N, C) for tokens."""

    @abstractmethod
    def compare_outputs(self, ours: Tensor, theirs: Tensor) -> dict[str, Tensor]:
        """Return the loss terms between the outputs of the student and of the teacher."""

    @abstractmethod
    def readings(self, ours: Tensor, theirs: Tensor) -> dict[str, float]:
        """Return the held-out metrics that compare the outputs for many texts."""

    def token_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return for each loss term the number of texts or of tokens that it is a mean over."""
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        tokens = ids.new_tensor(ids.numel()) if mask is None else mask.sum()
        return {term: (ids.new_tensor(len(ids)) if term in self.by_rows else tokens).float() for term in self.weights}

    @property
    def by_rows(self) -> tuple[str, ...]:
        """The loss terms that are means over texts."""
        return BY_ROWS

    def train(self, mode: bool = True) -> "WholeTextDistillation":
        """Set the training mode, but leave all modules with dropout in evaluation mode."""
        super().train(mode)
        self.student.eval()
        return self

    def prepare(self, batch: Batch) -> Batch:
        """Add `tokens` (N,), the rows of the flattened batch that are not padding, if there is padding."""
        if "attention_mask" not in batch:
            return batch
        return batch | {"tokens": batch["attention_mask"].flatten().nonzero().squeeze(-1)}

    def forward(self, batch: Batch, fractions: Fractions | None = None) -> dict[str, Tensor]:
        """Return `loss` and its terms for a batch of input_ids (B, T) and, with padding, an attention_mask.

        `fractions` are this micro-batch's shares of the texts or tokens of an update, by loss term.
        """
        assert self.teacher is not None
        batch = batch if "tokens" in batch else self.prepare(batch)
        with self.layer_matching.record(self.student, 0) as mine:
            ours = self.outputs(0, batch)
        with torch.no_grad(), self.layer_matching.record(self.teacher, 1) as other:
            theirs = self.outputs(1, batch)
        terms = self.compare_outputs(ours, theirs)
        terms |= self.layer_matching.compare(mine, other, batch.get("tokens"), batch.get("attention_mask"))
        terms = {term: terms[term] * (fractions[term] if fractions else 1) for term in self.weights}
        loss = torch.stack([self.weights[term] * value for term, value in terms.items()]).sum()
        return {"loss": loss} | {term: value.detach() for term, value in terms.items()}

    def model_inputs(self, side: int, batch: Batch) -> tuple[PreTrainedModel, Batch]:
        """Return the model of a side (0: student, 1: teacher) and its part of a batch."""
        prefix = self.prefix if side else ""
        inputs = {name: batch[prefix + name] for name in self.inputs[side] if prefix + name in batch}
        return (self.teacher if side and self.teacher is not None else self.student), inputs


class EmbeddingDistillation(WholeTextDistillation):
    """The distance between sentence embeddings: `embedding`, and `similarity` between all pairs of a batch.

    The modules of the student's head are trained, too. If its embeddings have another width than the teacher's, a
    projection to it is learnt for the term `embedding`.
    """

    def __init__(
        self, student: SentenceEncoder, teacher: SentenceEncoder, weights: Mapping[str, float], **options: Any
    ) -> None:
        super().__init__(student.model, teacher.model, weights, **options)
        self.head = student.head
        self.modules_to_save = "Dense" if any(True for _ in self.head.parameters()) else ""
        self.__dict__["teacher_head"] = teacher.head.requires_grad_(False)  # like the teacher, not a submodule
        self.prompt_tokens = (student.prompt_tokens(), teacher.prompt_tokens())
        widths = student.width, teacher.width
        self.projection: nn.Module = nn.Linear(*widths, bias=False) if widths[0] != widths[1] else nn.Identity()

    def outputs(self, side: int, batch: Batch) -> Tensor:
        """Return the embeddings (B, D)."""
        model, inputs = self.model_inputs(side, batch)
        mask = batch.get((self.prefix if side else "") + "attention_mask", torch.ones_like(inputs["input_ids"]))
        states = encoder_states(model, inputs).unflatten(0, mask.shape)  # (B, T, H)
        head = cast(SentenceHead, self.teacher_head if side else self.head)
        return cast(Tensor, head(states, mask, self.prompt_tokens[side]))

    def compare_outputs(self, ours: Tensor, theirs: Tensor) -> dict[str, Tensor]:
        """Return the terms `embedding` and `similarity`."""
        return {
            "embedding": losses.embedding(self.projection(ours), theirs),
            "similarity": losses.similarity(ours, theirs),
        }

    def readings(self, ours: Tensor, theirs: Tensor) -> dict[str, float]:
        """Return the mean cosine to the teacher's embeddings, and the overlap of the 10 nearest neighbours."""
        return {
            "heldout_cosine": mean_cosine(self.projection(ours).detach(), theirs),
            "heldout_neighbours": neighbour_overlap(ours, theirs),
        }

    def train(self, mode: bool = True) -> "EmbeddingDistillation":
        """Set the training mode, but leave all modules with dropout in evaluation mode."""
        super().train(mode)
        self.head.eval()
        return self

    def place_teacher(self, device: torch.device, dtype: torch.dtype | None, *, whole: bool = False) -> None:
        """Move the teacher and its modules to a device."""
        super().place_teacher(device, dtype, whole=whole)
        self.teacher_head.to(device, dtype if whole else None)


class OutputDistillation(WholeTextDistillation):
    """The distance between the outputs of two heads for the same labels: `ce`.

    | kind           | loss                                          |
    |----------------|-----------------------------------------------|
    | classification | KL, with temperature                          |
    | multi-label    | binary KL, with temperature                   |
    | regression     | squared error                                 |
    | tokens         | KL, with temperature, mean over all tokens    |

    `order` gives the teacher's output for each of the student's.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        weights: Mapping[str, float],
        *,
        kind: str,
        order: Sequence[int],
        temperature: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, weights, **options)
        self.kind, self.order, self.temperature = kind, list(order), temperature

    @property
    def by_rows(self) -> tuple[str, ...]:
        """The loss terms that are means over texts."""
        return () if self.kind == "tokens" else BY_ROWS

    def outputs(self, side: int, batch: Batch) -> Tensor:
        """Return the logits in the student's order, (B, C), or for tokens (N, C)."""
        model, inputs = self.model_inputs(side, batch)
        logits: Tensor = model(**inputs, **required_inputs(model, inputs["input_ids"])).logits.float()
        if self.kind == "tokens":
            logits = select_rows(logits.flatten(0, 1), batch.get("tokens"))
        return logits[..., self.order] if side else logits

    def compare_outputs(self, ours: Tensor, theirs: Tensor) -> dict[str, Tensor]:
        """Return the term `ce`."""
        if self.kind == "regression":
            return {"ce": F.mse_loss(ours, theirs)}
        distance = losses.binary_kl if self.kind == "multi-label" else losses.kl
        return {"ce": distance(ours, theirs, self.temperature)}

    def readings(self, ours: Tensor, theirs: Tensor) -> dict[str, float]:
        """Return the share of equal predictions and KL(teacher ‖ student) in nats; for numbers, the mean difference."""
        if self.kind == "regression":
            return {"heldout_difference": float((ours - theirs).abs().mean())}
        if self.kind == "multi-label":
            same, distance = (ours > 0) == (theirs > 0), losses.binary_kl(ours, theirs, 1.0)
        else:
            same, distance = ours.argmax(-1) == theirs.argmax(-1), losses.kl(ours, theirs, 1.0)
        return {"heldout_agreement": float(same.float().mean()), "heldout_kl": float(distance)}
