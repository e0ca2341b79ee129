"""Logits of rows from those of their windows."""

import torch

from distilkit.encoders.forward import mean_over_windows


def test_mean_over_windows() -> None:
    """Each row gets the mean of its own windows, whatever their order."""
    logits, owners = torch.tensor([[1.0, 0.0], [5.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0, 1])

    assert mean_over_windows(logits, owners, 2).tolist() == [[5.0, 2.0], [2.0, 2.0]]
