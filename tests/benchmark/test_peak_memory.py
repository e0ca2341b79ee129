"""Peak memory of a forward pass, by hand arithmetic."""

import torch
from torch import Tensor, nn

from distilkit.benchmark.peak_memory import peak_memory


class Model(nn.Module):
    """A model of 1,000 weights, used under two names, that frees one activation before it allocates another."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))
        self.tied = self.weight

    def forward(self, x: Tensor) -> Tensor:
        first = x + self.weight
        second = first * self.weight
        del first
        torch.empty(3000)
        return second


def test_peak_memory_by_hand() -> None:
    """4,000 bytes of weights, one activation of 4,000, and at the peak 12,000 bytes beside it.

    Before the peak, two activations of 4,000 bytes exist at once.
    """
    assert peak_memory(Model(), {"x": torch.ones(1000)}, "cpu") == 4_000 + 4_000 + 12_000
