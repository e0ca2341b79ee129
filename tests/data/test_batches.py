"""Numbered, shuffled micro-batches."""

import tracemalloc

import torch
from line import batches

from distilkit.data.batches import Batches


def test_each_epoch_has_every_row_once_in_a_new_order() -> None:
    """Numbers continue across epochs, the last batch of an epoch may be short, and batch n is always the same."""
    numbered = batches(batch_size=4)
    first, second = (
        [round(x, 1) for n in range(e * 3, e * 3 + 3) for x in numbered[n]["input_ids"].flatten().tolist()]
        for e in (0, 1)
    )

    assert numbered.per_epoch == 3
    assert sorted(first) == sorted(second) == [i / 10 for i in range(10)]
    assert first != second
    assert torch.equal(batches(batch_size=4)[4]["input_ids"], numbered[4]["input_ids"])


def test_a_million_rows_take_little_memory() -> None:
    """Python objects take less than a byte per row in every epoch, with and without sorting by length."""
    rows = range(10**6)
    for lengths in (None, [number % 97 for number in rows]):
        tracemalloc.start()
        numbered = Batches(rows, lambda rows, _: {"input_ids": torch.tensor(rows)}, batch_size=100, seed=0)
        if lengths:
            numbered.lengths = torch.tensor(lengths)
        assert len(set(numbered[0]["input_ids"].tolist() + numbered[15_000]["input_ids"].tolist())) > 190
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert peak < 10**6
