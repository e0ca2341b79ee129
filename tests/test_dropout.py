import math
import subprocess
import sys

import pytest
import torch

from distilkit.dropout import bernoulli_


@pytest.mark.parametrize("p", [0.9, 0.5, 0.1, 0.001, 0.0, 1.0])
def test_as_many_ones_as_asked_for(p: float) -> None:
    """The share of ones is p within four standard deviations, the same in every lane of a draw."""
    mask = bernoulli_(torch.empty(1_000_003), p, generator=torch.Generator().manual_seed(0))

    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    for lane in (mask, *(mask[i::4] for i in range(4))):
        assert abs(lane.mean().item() - p) <= 4 * math.sqrt(p * (1 - p) / len(lane))


def test_draws_are_independent() -> None:
    """Elements next to each other and of two draws do not go together; the same seed gives the same mask."""
    generator = torch.Generator().manual_seed(0)
    one, two = (bernoulli_(torch.empty(1_000_000), 0.5, generator=generator) - 0.5 for _ in range(2))

    for shift in range(1, 9):
        assert abs((one[shift:] * one[:-shift]).mean().item()) < 0.001  # four standard deviations
    assert abs((one * two).mean().item()) < 0.001
    assert torch.equal(bernoulli_(torch.empty(1_000_000), 0.5, generator=generator.manual_seed(0)) - 0.5, one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool])
def test_any_tensor_is_filled_in_place(dtype: torch.dtype) -> None:
    """Also one that isn't contiguous, of any type that masks have."""
    whole = torch.full((6, 10), 7).to(dtype)
    part = whole.T[2:8]
    plain = bernoulli_(torch.empty(6, 6), 0.5, generator=torch.Generator().manual_seed(1))

    assert bernoulli_(part, 0.5, generator=torch.Generator().manual_seed(1)) is part
    assert torch.equal(part.float(), plain)
    assert 0 < plain.sum() < 36
    assert torch.equal(whole.T[:2], torch.full((2, 6), 7).to(dtype))
    assert bernoulli_(torch.empty(0, 3), 0.5).shape == (0, 3)


PROCESS = """
import torch
from distilkit.config import TrainConfig
from distilkit.dropout import bernoulli_
from distilkit.processes import open_accelerator
mine = bernoulli_(torch.empty(1000), 0.9, generator=torch.Generator().manual_seed(5))
before = torch.empty(1000).bernoulli_(0.9, generator=torch.Generator().manual_seed(5))
open_accelerator(TrainConfig()), open_accelerator(TrainConfig())
after = torch.empty(1000).bernoulli_(0.9, generator=torch.Generator().manual_seed(5))
assert torch.equal(after, mine) and not torch.equal(before, mine)
torch.manual_seed(0)
x = torch.ones(400, 500, requires_grad=True)
y = torch.nn.functional.dropout(x, 0.1)
y.sum().backward()
assert torch.equal(x.grad, y.detach())
assert torch.allclose(y[y > 0], torch.tensor(1 / 0.9)) and abs(y.mean().item() - 1) < 0.01
q = torch.randn(2, 4, 64, 16)
a, b = (torch.nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5) for _ in range(2))
assert not torch.equal(a, b)
torch.manual_seed(0)
assert torch.equal(torch.nn.functional.dropout(torch.ones(400, 500), 0.1), y.detach())
"""


def test_dropout_takes_the_masks() -> None:
    """A run's dropout draws them, forward and backward take one, attention too, and nothing is said."""
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
