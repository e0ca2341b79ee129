"""Layers of a student paired with its teacher's, and how far apart what goes on inside of them is."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilkit.distillation import losses
from distilkit.distillation.activations import Activations, record_activations, show_attention
from distilkit.encoders.forward import select_rows
from distilkit.errors import DistilkitError

PARTS = ("hidden", "attention", "relation")
RELATION_HEADS = 48  # at most (MiniLMv2, section 4.1)


class LayerMatching(nn.Module):
    """What the parts `hidden`, `attention` and `relation` of a loss look at, as far as they are among `parts`.

    hidden and attention compare each of the student's layers with the teacher's that `layer_map` names for it; relation
    compares the last of these pairs (MiniLMv2). Where widths differ, hidden learns a projection; its distance is
    losses.hidden ("mse") or losses.cosine ("cosine").
    Raises DistilkitError where the two models don't fit the parts.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        parts: Collection[str],
        layer_map: Sequence[int],
        hidden_loss: str = "mse",
    ) -> None:
        super().__init__()
        self.distance = {"mse": losses.hidden, "cosine": losses.cosine}[hidden_loss]
        self.parts = [part for part in PARTS if part in parts]
        pairs = list(enumerate(layer_map))
        self.hidden_pairs = pairs if "hidden" in self.parts else []
        self.attention_pairs = pairs if "attention" in self.parts else pairs[-1:] if "relation" in self.parts else []
        if "attention" in self.parts:
            check_equal_size("num_attention_heads", student, teacher)
        widths = student.config.hidden_size, teacher.config.hidden_size
        self.relation_heads = max(n for n in range(1, RELATION_HEADS + 1) if not widths[0] % n and not widths[1] % n)
        self.projection = (
            nn.Linear(*widths, bias=False) if self.hidden_pairs and widths[0] != widths[1] else nn.Identity()
        )
        for model in (student, teacher) if self.attention_pairs else ():
            show_attention(model)

    def watch(self, model: PreTrainedModel, side: int) -> AbstractContextManager[Activations]:
        """Watch the layers that are compared, of the student (side 0) or of the teacher (1)."""
        hidden, attention = ([pair[side] for pair in pairs] for pairs in (self.hidden_pairs, self.attention_pairs))
        return record_activations(model, hidden, attention)

    def compare(
        self, ours: Activations, theirs: Activations, tokens: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return each part, a mean over the tokens that aren't padding: their rows in the flattened batch (N,).

        mask (B, T) is 0 at padding; both are None where none is.
        """
        parts = {}
        if self.hidden_pairs:
            states = [(ours.hidden[i], theirs.hidden[j]) for i, j in self.hidden_pairs]
            each = [
                self.distance(self.projection(select_rows(mine, tokens)), select_rows(other, tokens))
                for mine, other in states
            ]
            parts["hidden"] = torch.stack(each).mean()
        seen = [(ours.attention[i], theirs.attention[j]) for i, j in self.attention_pairs]
        if "attention" in self.parts:
            each = [losses.attention(mine.scores(), other.scores(), mask) for mine, other in seen]
            parts["attention"] = torch.stack(each).mean()
        if "relation" in self.parts:
            kinds = zip(*(seen[-1][side].relations(self.relation_heads) for side in (0, 1)), strict=True)
            parts["relation"] = torch.stack([losses.attention(mine, other, mask) for mine, other in kinds]).sum()
        return parts


SIZES = {  # what has to be the same in both models, and what to do where it isn't
    "hidden_size": ("widths", "leave out the cosine with --alpha-cos 0"),
    "num_attention_heads": (
        "numbers of attention heads",
        "leave out --alpha-attention, or for distill use --objective minilm",
    ),
}


def check_equal_size(name: str, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuse to compare what has another size in the teacher."""
    mine, theirs = (getattr(model.config, name, None) for model in (student, teacher))
    if mine != theirs:
        what, instead = SIZES[name]
        raise DistilkitError(f"student and teacher have different {what} ({mine} and {theirs}): {instead}")


def map_layers(given: tuple[int, ...] | None, student: PreTrainedModel, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher's layer for each of the student's: as given, or evenly spread with the last for the last.

    Evenly spread is TinyBERT's map (Jiao et al. 2020, section 4.1): for 4 of 12 the layers 2, 5, 8 and 11.
    Raises DistilkitError where a layer isn't there or the numbers don't fit.
    """
    ours, theirs = (model.config.num_hidden_layers for model in (student, teacher))
    even = [round((i + 1) * theirs / ours) - 1 for i in range(ours)]
    layers = even if given is None else [*even[:-1], *given] if len(given) == 1 else list(given)
    if len(layers) != ours or not all(0 <= layer < theirs for layer in layers):
        raise DistilkitError(
            f"--layer-map {','.join(map(str, layers))} does not fit: give one number or {ours}, from 0 to {theirs - 1}"
        )
    return layers
