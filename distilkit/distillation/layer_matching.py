"""Match student layers to teacher layers and measure the distance of their activations."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit.distillation import losses
from distilkit.distillation.activations import Activations, record_activations, show_attention
from distilkit.encoders.forward import select_rows
from distilkit.errors import DistilkitError

LAYER_TERMS = ("hidden", "attention", "relation")
MAX_RELATION_HEADS = 48  # MiniLMv2, section 4.1
REMEDIES = {  # by the name in a config: how messages call it, and what to do if the models differ
    "hidden_size": ("hidden sizes", "remove the cosine loss with --alpha-cos 0"),
    "num_attention_heads": (
        "numbers of attention heads",
        "remove --alpha-attention, or for distill use --objective minilm",
    ),
}


class LayerMatching(nn.Module):
    """Compute the loss terms `hidden`, `attention` and `relation`, as far as they are among `terms`.

    hidden and attention compare each student layer with the teacher layer that `layer_map` gives for it. relation
    compares only the last of these pairs (MiniLMv2). If the hidden sizes differ, hidden learns a linear projection.
    The distance of hidden states is losses.hidden ("mse") or losses.cosine ("cosine").
    Raises DistilkitError if the two models do not fit these terms.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        terms: Collection[str],
        layer_map: Sequence[int],
        hidden_loss: str = "mse",
    ) -> None:
        super().__init__()
        self.distance = {"mse": losses.hidden, "cosine": losses.cosine}[hidden_loss]
        self.terms = [term for term in LAYER_TERMS if term in terms]
        pairs = list(enumerate(layer_map))
        self.hidden_pairs = pairs if "hidden" in self.terms else []
        self.attention_pairs = pairs if "attention" in self.terms else pairs[-1:] if "relation" in self.terms else []
        if "attention" in self.terms:
            check_equal_size("num_attention_heads", student, teacher)
        widths = student.config.hidden_size, teacher.config.hidden_size
        candidates = range(1, MAX_RELATION_HEADS + 1)
        self.relation_heads = max(n for n in candidates if not widths[0] % n and not widths[1] % n)
        self.projection = (
            nn.Linear(*widths, bias=False) if self.hidden_pairs and widths[0] != widths[1] else nn.Identity()
        )
        for model in (student, teacher) if self.attention_pairs else ():
            show_attention(model)

    def record(self, model: PreTrainedModel, side: int) -> AbstractContextManager[Activations]:
        """Record the layers to compare, of the student (side 0) or the teacher (side 1)."""
        hidden, attention = ([pair[side] for pair in pairs] for pairs in (self.hidden_pairs, self.attention_pairs))
        return record_activations(model, hidden, attention)

    def compare(
        self, ours: Activations, theirs: Activations, tokens: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return each loss term, a mean over the tokens that are not padding.

        tokens (N,) are their rows in the flattened batch, mask (B, T) is 0 at padding. Both are None without padding.
        """
        terms = {}
        if self.hidden_pairs:
            states = [(ours.hidden[i], theirs.hidden[j]) for i, j in self.hidden_pairs]
            distances = [
                self.distance(self.projection(select_rows(mine, tokens)), select_rows(other, tokens))
                for mine, other in states
            ]
            terms["hidden"] = torch.stack(distances).mean()
        pairs = [(ours.attention[i], theirs.attention[j]) for i, j in self.attention_pairs]
        if "attention" in self.terms:
            distances = [losses.attention(mine.scores(), other.scores(), mask) for mine, other in pairs]
            terms["attention"] = torch.stack(distances).mean()
        if "relation" in self.terms:
            related = zip(*(attention.relations(self.relation_heads) for attention in pairs[-1]), strict=True)
            terms["relation"] = torch.stack([losses.attention(mine, other, mask) for mine, other in related]).sum()
        return terms


def check_equal_size(name: str, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Raise DistilkitError if student and teacher differ in this size of their configs."""
    mine, theirs = (getattr(model.config, name, None) for model in (student, teacher))
    if mine != theirs:
        what, remedy = REMEDIES[name]
        raise DistilkitError(f"student and teacher have different {what} ({mine} and {theirs}): {remedy}")


def map_layers(given: tuple[int, ...] | None, student: PreTrainedModel, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher layer for each student layer: as given, or evenly spread, the last layers always paired.

    The even spread is TinyBERT's (Jiao et al. 2020, section 4.1): 4 of 12 layers learn from 2, 5, 8 and 11. A single
    given layer replaces only the last one.
    Raises DistilkitError if a layer does not exist or their number is wrong.
    """
    ours, theirs = (model.config.num_hidden_layers for model in (student, teacher))
    even = [round((i + 1) * theirs / ours) - 1 for i in range(ours)]
    layers = even if given is None else [*even[:-1], *given] if len(given) == 1 else list(given)
    if len(layers) != ours or not all(0 <= layer < theirs for layer in layers):
        raise DistilkitError(
            f"--layer-map {','.join(map(str, layers))} does not fit: give one layer or {ours}, from 0 to {theirs - 1}"
        )
    return layers
