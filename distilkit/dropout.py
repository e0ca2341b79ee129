"""Dropout's masks on a CPU: four from a draw of the random generator instead of one."""

import warnings
from functools import cache

import torch
from torch import Tensor


@cache
def draw_masks_in_fours() -> torch.library.Library:
    """Replace torch's Bernoulli draws on CPUs by faster ones of the same generator, for as long as the process lives.

    torch draws a mask's elements one by one on one thread (on Intel's CPUs several at a time, on all threads), which is
    a tenth of the time of a small model's step. Modules and attention functions alike get their masks from this
    operator; all CPUs do, so that a seed drops out the same everywhere.
    """
    library = torch.library.Library("aten", "IMPL", "CPU")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # that one is overridden
        library.impl("bernoulli_.float", bernoulli_)
    return library


def bernoulli_(mask: Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    """Fill a tensor with ones, each with probability p, and zeros.

    p is rounded to a multiple of 1/65,536, near 0 and 1 of 1/4,294,967,296: as many bits are drawn for an element.
    """
    lane = torch.int16 if 0.01 < p < 0.99 else torch.int32
    bits, many = torch.iinfo(lane).bits, mask.numel()
    draws = torch.empty(-(-many * bits // 64), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    lanes = draws.view(lane)[:many].view(mask.shape)  # uniform between the lane's least and greatest number
    threshold = round(p * 2**bits) - 2 ** (bits - 1)
    if threshold > torch.iinfo(lane).max:
        return mask.fill_(1)
    return torch.lt(lanes, threshold, out=mask)
