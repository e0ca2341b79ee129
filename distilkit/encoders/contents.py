"""What a checkpoint is, read from its weights: the head that they hold, and the tensors that have no place in it."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distilkit.encoders.weights import PRECISIONS
from distilkit.errors import DistilkitError, library_errors

Head = Literal[
    "masked-lm", "sequence-classification", "question-answering", "token-classification", "multiple-choice", "encoder"
]

# The model class of each architecture by head. Among equals, identify() takes the first head.
CLASSES: dict[Head, Mapping[Any, Any]] = {
    "masked-lm": transformers.MODEL_FOR_MASKED_LM_MAPPING,
    "sequence-classification": transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "question-answering": transformers.MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    "token-classification": transformers.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    "multiple-choice": transformers.MODEL_FOR_MULTIPLE_CHOICE_MAPPING,
    "encoder": transformers.MODEL_MAPPING,
}
HEADS: dict[str, Head] = {  # by what the names of classes end in
    "ForMaskedLM": "masked-lm",
    "ForPreTraining": "masked-lm",
    "WithLMHead": "masked-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForQuestionAnswering": "question-answering",
    "ForTokenClassification": "token-classification",
    "ForMultipleChoice": "multiple-choice",
}
# Buffers that older versions of transformers saved and later ones compute.
COMPUTED = ("position_ids", "token_type_ids", "inv_freq")


class Placement(NamedTuple):
    """A checkpoint's tensors in a model class: names of tensors that are missing, left over or of another shape."""

    head: Head
    model: PreTrainedModel
    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: dict[str, tuple[list[int], list[int]]]  # shapes in the file and in the model

    @property
    def complete(self) -> bool:
        """Whether the weights hold this head, or for a bare encoder all but its pooler."""
        return not {name for name in self.missing if not (self.head == "encoder" and is_pooler(name))}


def config_errors(name: str) -> AbstractContextManager[None]:
    """Context manager: turn whatever transformers raises on a bad config.json into one line."""
    return library_errors(f"'{name}' has a config.json that transformers cannot use", "check it")


def is_pooler(name: str) -> bool:
    """Return whether a tensor belongs to an encoder's pooler."""
    return ".pooler." in f".{name}"


def named_head(names: Iterable[str] | None) -> Head | None:
    """Return the head in the name of a model class (a config's `architectures`), None without a name."""
    name = next(iter(names or ()), None)
    return None if name is None else next((head for ending, head in HEADS.items() if ending in name), "encoder")


def model_class(config: PretrainedConfig, head: Head) -> Any:
    """Return an architecture's model class with a head, None if it has no such class."""
    if type(config) not in CLASSES[head]:
        return None
    found: Any = CLASSES[head][type(config)]
    choices = found if isinstance(found, (tuple, list)) else (found,)  # Funnel: with or without a decoder
    return next((choice for choice in choices if choice.__name__ in (config.architectures or ())), choices[0])


def place(
    config: PretrainedConfig,
    head: Head,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Placement | None:
    """Put tensors into the model class of a head; None if the architecture has no such class.

    Missing tensors are newly initialised. On the device "meta", nothing has data, and the tensors are not read.
    """
    best: Placement | None = None
    for variant in _variants(config):
        chosen = model_class(variant, head)
        if chosen is None:
            return None
        given = {name: torch.empty_like(t, device="meta") for name, t in tensors.items()}
        with library_errors("the weights do not fit config.json", "check both"):
            model, report = chosen.from_pretrained(
                None,
                config=variant,
                state_dict=given if device == "meta" else dict(tensors),
                dtype=dtype,
                device_map="meta" if device == "meta" else None,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        found = Placement(
            head,
            model,
            frozenset(report["missing_keys"]),
            frozenset(name for name in report["unexpected_keys"] if not name.endswith(COMPUTED)),
            {name: (list(ours), list(theirs)) for name, ours, theirs in report["mismatched_keys"]},
        )
        if found.complete:
            return found
        best = best or found
    return best


def _variants(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """Yield a config, and for DeBERTa one with its head under the other of its two names."""
    yield config
    if (legacy := getattr(config, "legacy", None)) is not None:
        other = copy.deepcopy(config)
        other.legacy = not legacy
        yield other


def without_head(config: PretrainedConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's encoder alone."""
    found = place(config, "encoder", tensors, device="meta")
    return {name: tensor for name, tensor in tensors.items() if found and name not in found.unexpected}


def reorder_outputs(model: PreTrainedModel, order: Sequence[int]) -> None:
    """Reorder the outputs of a model's head: `order` has the old position of each new output."""
    encoder = set(model.base_model.modules())
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module not in encoder]
    last = next(layer for layer in reversed(layers) if layer.out_features == len(order))
    for parameter in last.parameters():
        parameter.data = parameter.data[list(order)]


def restore_precision(placement: Placement, tensors: Mapping[str, Tensor]) -> None:
    """Give each tensor of a model the precision that it has in the files. It was loaded in the widest of them."""
    model, kinds = placement.model, {tensor.dtype for tensor in tensors.values()} & set(PRECISIONS)
    state = model.state_dict(keep_vars=True)
    for dtype in kinds if len(kinds) > 1 else ():
        of_kind = {name: tensor for name, tensor in tensors.items() if tensor.dtype == dtype}
        found = place(model.config, placement.head, of_kind, device="meta")
        assert found
        for name in state.keys() - found.missing - placement.missing:
            if state[name].is_floating_point():
                state[name].data = state[name].data.to(dtype)


def identify(config: PretrainedConfig, tensors: Mapping[str, Tensor]) -> Placement:
    """Return the head that a checkpoint's weights hold, with the model on the device "meta".

    That is the head that config.json names, if the weights hold it, else the head that leaves the fewest tensors
    unused. A head that config.json names but the weights lack does not count.
    Raises DistilkitError if weights of the encoder itself are missing.
    """
    named = named_head(config.architectures)
    heads = sorted(CLASSES, key=lambda head: head != named)
    if getattr(config, "is_decoder", False) and named != "masked-lm":
        heads.remove("masked-lm")  # these tensors have the names of a masked-LM head, but it predicts the next token
    complete: list[Placement] = []
    for head in heads:
        found = place(config, head, tensors, device="meta")
        if found and found.complete:
            complete.append(found)
            if head == named and (head != "encoder" or not found.unexpected):
                return found
        last = found
    if complete:
        return min(complete, key=lambda found: (len(found.unexpected), bool(found.mismatched)))
    assert last  # CLASSES ends with "encoder", which every architecture has
    return last


def left_over(placement: Placement, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Return the tensors without a place in a model: those that change what it computes, and those of other heads.

    Copies of a tensor that has a place are neither.
    """
    model, names = placement.model, sorted(placement.unexpected)
    parts = {path for name in model.state_dict() for path in (_head_part(name),) if path}
    prefix = f"{model.base_model_prefix}."
    own = {name for name, _ in model.base_model.named_children()}
    plain = not any(name.startswith(prefix) for name in tensors)
    inside, other = list[str](), list[str]()
    for name in names:
        if _is_copy(name, tensors, placement):
            continue
        in_encoder = name.startswith(prefix) or (plain and name.split(".")[0] in own)
        in_head = placement.complete and any(name.startswith(f"{part}.") for part in parts if part not in own)
        (inside if (in_encoder or in_head) and not is_pooler(name) else other).append(name)
    return inside, other


def _head_part(name: str) -> str:
    """Return the module that a tensor belongs to, down to the second level: cls.predictions, classifier.dense."""
    return ".".join(name.split(".")[:-1][:2])


def _is_copy(name: str, tensors: Mapping[str, Tensor], placement: Placement) -> bool:
    tensor = tensors.get(name)
    if tensor is None or torch.equal(tensor, tensor.flatten()[:1].expand_as(tensor)):  # equal by chance
        return False
    return any(
        other.shape == tensor.shape and other.dtype == tensor.dtype and torch.equal(other, tensor)
        for key, other in tensors.items()
        if key not in placement.unexpected
    )


def summarise(names: Iterable[str]) -> str:
    """Name groups of tensors with their number: "cls.seq_relationship (2 tensors), bert.pooler (2 tensors)"."""
    groups: dict[str, int] = {}
    for name in names:
        part = _head_part(name) or name
        groups[part] = groups.get(part, 0) + 1
    return ", ".join(f"{part} ({count} tensor{'s' * (count > 1)})" for part, count in groups.items())


def check_placement(name: str, placement: Placement, tensors: Mapping[str, Tensor], *, new_head: bool) -> list[str]:
    """Return the tensors of other heads; they are not used.

    Raises DistilkitError if config.json does not describe the weights: if some are missing, of another shape, or
    have no place in the model although they belong to it. With `new_head`, the head may be missing or of another size.
    """
    model, head = placement.model, placement.head
    refuse_quantised(name, model, tensors)
    inside, other = left_over(placement, tensors)
    if inside:
        raise DistilkitError(
            f"'{name}' has weights that the {type(model).__name__} in its config.json does not use ('{inside[0]}'"
            f"{f' and {len(inside) - 1} more' * (len(inside) > 1)}), so its outputs would change: correct "
            "config.json, or give another checkpoint"
        )
    in_encoder = _encoder_names(model, head)
    for tensor, (shape, expected) in sorted(placement.mismatched.items()):
        if tensor in in_encoder or not new_head:
            raise DistilkitError(
                f"'{name}' has '{tensor}' of shape {shape}, but config.json makes it {expected}: correct config.json"
            )
    lacking = sorted(key for key in placement.missing if key in in_encoder and not is_pooler(key))
    if lacking:
        raise DistilkitError(
            f"'{name}' is missing encoder weights, for example '{lacking[0]}': the checkpoint is damaged or of "
            "another architecture"
        )
    if placement.missing and not new_head and head == "masked-lm":
        raise DistilkitError(
            f"'{name}' has no trained masked-LM head ('{min(placement.missing)}' is missing): train one with "
            "distilkit distill … --objective mlm --new-head"
        )
    if placement.missing and not new_head and head != "encoder":
        raise DistilkitError(f"'{name}' has no trained {head} head: train one with distilkit finetune")
    return other


def refuse_quantised(name: str, model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Raise DistilkitError if a weight is stored as integers or as 8-bit numbers, whose scale is elsewhere."""
    state, prefix = model.state_dict(), f"{model.base_model_prefix}."
    for key, tensor in tensors.items():
        target = state.get(key, state.get(prefix + key, state.get(key.removeprefix(prefix))))
        if target is not None and target.is_floating_point() and tensor.dtype not in PRECISIONS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DistilkitError(f"'{name}' is quantised ('{key}' is {kind}): give the checkpoint in full precision")


def _encoder_names(model: PreTrainedModel, head: Head) -> set[str]:
    names = set(model.state_dict())
    return names if head == "encoder" else {key for key in names if key.startswith(f"{model.base_model_prefix}.")}
