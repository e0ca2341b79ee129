"""The presets of --objective: loss weights, defaults of other options, and the default objective of a checkpoint."""

from dataclasses import fields, replace
from typing import Any, Literal, cast

from distilkit.data.blocks import SEQ_LENGTH
from distilkit.encoders import checkpoint
from distilkit.encoders.contents import Head
from distilkit.encoders.sentence_layout import Layout, read_layout
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.spec import flag
from distilkit.progress import say

Kind = Literal["sentence-encoder"] | Head
LOSS_TERMS = ("ce", "mlm", "cos", "embedding", "similarity", "hidden", "attention", "relation")
PREDICTS_TOKENS = {"ce", "mlm"}  # loss terms that need a vocabulary head, in objectives on blocks of text
WEIGHTS = {  # of the loss terms, by --objective
    "triple": {"ce": 5.0, "mlm": 2.0, "cos": 1.0},  # Sanh et al. 2019; the weights are from transformers issue 2013
    "mlm": {"mlm": 1.0},
    "hidden": {"hidden": 1.0},
    "attention": {"attention": 1.0, "hidden": 1.0},  # as in TinyBERT's general distillation
    "minilm": {"relation": 1.0},
    "embedding": {"embedding": 1.0, "hidden": 1.0},
    "soft-targets": {"ce": 1.0, "hidden": 1.0},
}
ON_BLOCKS: dict[str, Any] = {"lr": 5e-4, "batch_size": 32, "seq_length": SEQ_LENGTH}  # of options that are not given
ON_TEXTS: dict[str, dict[str, Any]] = {  # likewise, for objectives whose rows are whole texts, with nothing masked
    "embedding": {"lr": 3e-4, "batch_size": 16, "split": "sentences"},
    "soft-targets": {"lr": 3e-4, "batch_size": 16, "split": "documents"},
}
BY_KIND: dict[Kind, tuple[str, str]] = {  # the default objective, and the reason that messages give for it
    "masked-lm": ("triple", "has a masked-LM head"),
    "sentence-encoder": ("embedding", "is a sentence encoder"),
    "encoder": ("embedding", "has no head"),
    "sequence-classification": ("soft-targets", "is a classifier"),
    "token-classification": ("soft-targets", "is a tagger"),
    "question-answering": ("hidden", "has a question-answering head, which plain text cannot train"),
    "multiple-choice": ("hidden", "has a multiple-choice head, which plain text cannot train"),
}
FOR_BLOCKS = (
    *("streaming", "packing", "mask_probability", "teacher_cache", "ce_positions", "ce_until", "new_head"),
    *("alpha_mlm", "alpha_cos"),
)
FOR_EMBEDDINGS = ("projection", "alpha_embedding", "alpha_similarity")
WITHOUT_EFFECT = {  # options, by --objective
    **dict.fromkeys(WEIGHTS, ("split", *FOR_EMBEDDINGS)),
    "embedding": (*FOR_BLOCKS, "alpha_ce", "temperature"),
    "soft-targets": (*FOR_BLOCKS, *FOR_EMBEDDINGS),
}


def kind_of(layout: Layout | None, head: Head) -> Kind:
    """Return what a checkpoint is: a sentence encoder if sentence-transformers wrote it, else by its head."""
    return "sentence-encoder" if layout and layout.is_sentence_encoder else head


def with_objective(options: DistillOptions) -> DistillOptions:
    """Return the options with an objective, the one that fits the student's head by default, and with its defaults.

    Raises DistilkitError if an option has no effect with the objective, or if the student lacks the head for it.
    """
    objective = options.objective
    kind = kind_of(read_layout(options.student), checkpoint.head_of(options.student))
    default, reason = BY_KIND[kind]
    if objective is None:
        objective = cast(Any, default)
        if kind != "masked-lm":
            say(f"--objective {objective}, because '{options.student}' {reason}")
    if objective == "soft-targets" != default:
        raise DistilkitError(
            f"--objective soft-targets requires a classification head, and '{options.student}' {reason}: choose another"
        )
    for item in fields(options):
        if item.name in WITHOUT_EFFECT[objective] and getattr(options, item.name) != item.default:
            raise DistilkitError(f"{flag(item.name)} has no effect with --objective {objective}: remove it")
    defaults = ON_TEXTS.get(objective, ON_BLOCKS)
    values = {name: value for name, value in defaults.items() if getattr(options, name) is None}
    return replace(options, objective=objective, **values)


def loss_weights(options: DistillOptions) -> dict[str, float]:
    """Return the weights of the loss terms of --objective and the --alpha options, without those that are 0.

    Raises DistilkitError if none is left, or if an objective without a teacher has other terms than masked LM.
    """
    given = {term: getattr(options, f"alpha_{term}") for term in LOSS_TERMS}
    objective = options.objective or "triple"
    weights = WEIGHTS[objective] | {term: weight for term, weight in given.items() if weight is not None}
    weights = {term: weight for term, weight in weights.items() if weight}
    if not weights:
        raise DistilkitError("all weights of the loss are 0: set an --alpha above 0")
    if objective == "mlm" and weights.keys() != {"mlm"}:
        others = ", ".join(sorted(weights.keys() - {"mlm"}))
        raise DistilkitError(
            f"--objective mlm has no teacher, but these loss terms need one: {others}; choose another --objective"
        )
    return weights
