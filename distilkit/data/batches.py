"""Number and shuffle micro-batches: batch n is a function of n."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

Collate = Callable[[list[dict[str, Any]], list[torch.Generator]], dict[str, Tensor]]
POOL_BATCHES = 50  # whose rows are sorted by length together


class Batches(Dataset[dict[str, Tensor]]):
    """Numbered micro-batches of shuffled rows: batches[n] is the n-th micro-batch of the run, for any n.

    Every epoch has its own order, and every row its own random generator. Both depend only on the seed, the epoch and
    the row. With `lengths`, one number per row, rows of similar length share a batch, which saves padding.
    """

    def __init__(self, rows: Any, collate: Collate, *, batch_size: int, seed: int, lengths: Any = None) -> None:
        self.rows, self.collate, self.batch_size, self.seed = rows, collate, batch_size, seed
        self.lengths = None if lengths is None else torch.as_tensor(lengths)
        self.per_epoch = math.ceil(len(rows) / batch_size)
        self._epoch = -1
        self._row_order = self._batch_order = torch.empty(0, dtype=torch.long)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, position = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._start_epoch(epoch)
            self._epoch = epoch
        start = int(self._batch_order[position]) * self.batch_size
        chosen = self._row_order[start : start + self.batch_size].tolist()
        generators = [_generator(self.seed, epoch, start + i) for i in range(len(chosen))]
        return self.collate([self.rows[i] for i in chosen], generators)

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the rows: their number, and a CRC-32 of some of them."""
        positions = range(0, len(self.rows), max(1, len(self.rows) // 64))
        return f"{len(self.rows)}, {zlib.crc32(repr([self.rows[position] for position in positions]).encode()):08x}"

    def _start_epoch(self, epoch: int) -> None:
        """Shuffle the rows for an epoch."""
        generator = _generator(self.seed, -1, epoch)
        self._row_order = torch.randperm(len(self.rows), generator=generator)
        self._batch_order = torch.arange(self.per_epoch)
        if self.lengths is not None:
            # Rows are sorted by length within pools of batches, so that batches still differ between epochs.
            pools = self._row_order.split(POOL_BATCHES * self.batch_size)
            self._row_order = torch.cat([pool[self.lengths[pool].argsort()] for pool in pools])
            self._batch_order = torch.randperm(self.per_epoch, generator=generator)


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(numbers) % 2**63)  # hash() of integers is the same in every process
