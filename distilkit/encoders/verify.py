"""Check that a student computes what its truncated teacher computes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.encoders import checkpoint
from distilkit.encoders.forward import required_inputs
from distilkit.encoders.layers import skip_layers
from distilkit.encoders.sentence import SentenceEncoder
from distilkit.errors import DistilkitError

INPUT_TOKENS = 192  # tokens; longer than the window of ModernBERT's local layers
TOLERANCE = 1e-5  # relative to the largest output; allows for rounding if a factor was folded into weights


@torch.no_grad()
def max_output_difference(
    teacher: PreTrainedModel, student: PreTrainedModel, kept: Sequence[int], kept_ids: Sequence[int] | None
) -> tuple[float, float]:
    """Compare a student's outputs with those of its teacher with the other layers skipped.

    Both run in fp32 on random tokens. Returns the largest difference (0.0 on a CPU, unless a factor had to be folded
    into weights) and the largest output.
    """
    size = len(kept_ids) if kept_ids else teacher.config.vocab_size
    length = min(INPUT_TOKENS, checkpoint.max_tokens(teacher) or INPUT_TOKENS)
    ids = torch.randint(size, (2, length), generator=torch.Generator().manual_seed(0))  # (B, T)
    index = torch.tensor(kept_ids) if kept_ids else torch.arange(size)
    with skip_layers(teacher, kept):
        expected = run_model(teacher.float(), index[ids])
    if checkpoint.head_of_model(teacher) == "masked-lm":
        expected["logits"] = expected["logits"][..., index]  # (B, T, V)
    found = run_model(student.float(), ids)  # DistilBERT has no pooler output
    if not found or any(name not in expected or expected[name].shape != found[name].shape for name in found):
        raise DistilkitError("the student's outputs differ in shape from the teacher's: please report this model")
    differences = torch.stack([(expected[name] - found[name]).abs().max() for name in found])
    scale = torch.stack([expected[name].abs().max() for name in found])
    return float(differences.max()), float(scale.max())  # torch's max() propagates nan; Python's may not


def check_values(model: PreTrainedModel, tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise DistilkitError unless each weight of an open model is in the tensors of its files, in the same precision.

    The files are read without a model, so this does not depend on how the model was loaded. transformers renames old
    names, and takes some tensors apart along their rows, so a weight may be any tensor, or a part of one.
    """
    for key, weight in model.state_dict().items():
        candidates = [tensors[key]] if key in tensors else []
        if weight.is_floating_point() and not any(_holds(whole, weight) for whole in [*candidates, *tensors.values()]):
            raise DistilkitError(
                f"'{key}' was not loaded as it is in the files of '{name}': please report this checkpoint"
            )


def _holds(whole: Tensor, part: Tensor) -> bool:
    if whole.dtype != part.dtype or whole.shape[1:] != part.shape[1:] or whole.dim() != part.dim():
        return False
    if not part.dim() or not len(part) or len(whole) % len(part):
        return torch.equal(whole, part)
    return any(torch.equal(piece, part) for piece in whole.split(len(part)))


@torch.no_grad()
def max_embedding_difference(
    teacher: SentenceEncoder, student: SentenceEncoder, kept: Sequence[int], kept_ids: Sequence[int] | None
) -> tuple[float, float]:
    """Compare the embeddings of a student with those of its teacher with the other layers skipped.

    Both run in fp32 on random tokens, in rows of several lengths. Returns the largest difference and output.
    """
    size = len(kept_ids) if kept_ids else teacher.model.config.vocab_size
    lengths = torch.tensor([teacher.max_length, teacher.max_length // 2, 3]).clamp(max=INPUT_TOKENS)
    mask = (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).long()  # (B, T)
    ids = torch.randint(size, mask.shape, generator=torch.Generator().manual_seed(0))
    index = torch.tensor(kept_ids) if kept_ids else torch.arange(size)
    with skip_layers(teacher.model, kept):
        expected = teacher.float()({"input_ids": index[ids], "attention_mask": mask})
    found = student.float()({"input_ids": ids, "attention_mask": mask})
    if found.shape != expected.shape:
        raise DistilkitError("the student's embeddings differ in width from the teacher's: please report this model")
    return float((expected - found).abs().max()), float(expected.abs().max())


def run_model(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """Run a model on token ids (B, T); return its outputs by name."""
    model.eval()
    output = model(input_ids=ids, **required_inputs(model, ids))
    return {name: value for name, value in output.items() if isinstance(value, Tensor)}
