"""Check that an exported model computes what its checkpoint computes."""

import torch
from torch import Tensor

from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.runtimes.exported import open_exported
from distilkit.runtimes.exporting import open_whole, random_inputs
from distilkit.runtimes.fresh import call_in_new_process

TOLERANCE = 1e-4  # relative to the largest output
BATCHES, MAX_BATCH, MAX_LENGTH = 6, 6, 192  # MAX_LENGTH is longer than the window of ModernBERT's local layers


def verify(exported: str, name: str, seed: int, *, exact: bool) -> float:
    """Compare an exported model with its checkpoint in a new process; return the largest output difference.

    Raises DistilkitError if an output is not finite or, with `exact`, if the difference exceeds the tolerance.
    """
    difference, scale = call_in_new_process("distilkit.runtimes.verify:largest_difference", exported, name, seed)
    bound = TOLERANCE * max(1.0, scale) if exact else float("inf")
    if not difference < bound:  # nan fails this comparison
        raise DistilkitError(
            f"the exported model computes other outputs than '{name}' (they differ by up to {difference:.2g}): please "
            "report this model"
        )
    return float(difference)


@torch.inference_mode()
def largest_difference(exported: str, name: str, seed: int) -> tuple[float, float]:
    """Run both models on random batches; return the largest difference of an output at a token, and the largest output.

    Batch sizes, lengths, padding and its side are random. The first batch is a single token, the second has one row of
    the greatest length.
    """
    ours, (theirs, _) = open_exported(exported), open_whole(name)
    longest = min(MAX_LENGTH, checkpoint.max_tokens(theirs) or MAX_LENGTH)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, MAX_BATCH + 1, (BATCHES,), generator=generator).tolist()
    rows = [torch.randint(1, longest + 1, (size,), generator=generator).tolist() for size in sizes]
    found = torch.zeros(2)
    for number, lengths in enumerate([[1], [longest], *rows]):
        inputs = random_inputs(theirs, lengths, generator, left=number % 2 == 1)
        expected, computed = theirs(**inputs), ours(**inputs)
        for output, value in expected.items():
            if isinstance(value, Tensor):
                pair = at_tokens(value, inputs), at_tokens(computed[output], inputs)
                largest = torch.stack([(pair[0] - pair[1]).abs().max(), pair[0].abs().max()])
                found = torch.maximum(found, largest)  # propagates nan
    return tuple(found.tolist())


def at_tokens(output: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Return the rows (N, …) of an output (B, T, …) that are not padding; the whole of an output without tokens."""
    mask = inputs["attention_mask"].bool()
    return output[mask] if output.shape[:2] == mask.shape else output
