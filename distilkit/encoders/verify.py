"""The proof that a student computes what its teacher does with some layers passed over."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distilkit.encoders import checkpoint
from distilkit.encoders.forward import required_inputs
from distilkit.encoders.layers import skip_layers
from distilkit.errors import DistilkitError

PROOF_LENGTH = 192  # tokens: more than the window of ModernBERT's local layers
TOLERANCE = 1e-5  # of the largest output: rounding, where a factor had to be folded into weights


@torch.inference_mode()
def max_output_difference(
    teacher: PreTrainedModel, student: PreTrainedModel, kept: Sequence[int], kept_ids: Sequence[int] | None
) -> tuple[float, float]:
    """Return how far a student's outputs are from those of its teacher with the other layers passed over.

    Both in fp32, on random tokens; the first number is the largest difference (0.0 on a CPU where nothing had to be
    folded), the second the largest output.
    """
    size = len(kept_ids) if kept_ids else teacher.config.vocab_size
    length = min(PROOF_LENGTH, checkpoint.max_tokens(teacher) or PROOF_LENGTH)
    ids = torch.randint(size, (2, length), generator=torch.Generator().manual_seed(0))  # (B, T)
    index = torch.tensor(kept_ids) if kept_ids else torch.arange(size)
    with skip_layers(teacher, kept):
        expected = outputs(teacher.float(), index[ids])
    if checkpoint.head_of(teacher.config) == "masked-lm":
        expected["logits"] = expected["logits"][..., index]  # (B, T, V)
    found = outputs(student.float(), ids)  # a DistilBERT has no pooler's output
    if not found or any(name not in expected or expected[name].shape != found[name].shape for name in found):
        raise DistilkitError("the student's outputs have another shape than the teacher's: report this model")
    differences = torch.stack([(expected[name] - found[name]).abs().max() for name in found])
    scale = torch.stack([expected[name].abs().max() for name in found])
    return float(differences.max()), float(scale.max())  # torch's max() passes nan on, Python's may not


def outputs(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """Return what a model puts out for token ids (B, T), by name."""
    model.eval()
    output = model(input_ids=ids, **required_inputs(model, ids))
    return {name: value for name, value in output.items() if isinstance(value, Tensor)}
