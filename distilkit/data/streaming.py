"""Micro-batches of a text too large to store: tokenised while it is read, shuffled in a buffer of rows."""

import copy
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch

from distilkit.data import corpus
from distilkit.data.batches import Batches, Collate
from distilkit.data.packing import Ids, Packer, group_texts
from distilkit.errors import DistilkitError
from distilkit.progress import track

BUFFER_ROWS = 2**14  # rows that are shuffled together: 4 MB at 128 tokens each


class Position(TypedDict):
    """Where reading can start: between two groups of documents."""

    row: int  # rows before it since the start
    row_of_pass: int  # rows before it in this pass over the text, skipped ones included
    rest: list[int]  # tokens before it that do not fill a row yet
    documents: dict[str, Any] | None  # datasets' own state, None at the start of a pass


class RowGroup(NamedTuple):
    """The rows that a group of documents completes, and the position before it."""

    position: Position
    rows: list[Ids]

    @property
    def end(self) -> int:
        """The number of the first row after the group."""
        return self.position["row"] + len(self.rows)


START = Position(row=0, row_of_pass=0, rest=[], documents=None)


class RowStream:
    """An endless stream of packed rows: row n depends only on the text and n.

    Every pass over the text yields the same rows, except for the first `skipped_rows`. A checkpoint
    stores `position`; reading continues from there without tokenising the text before it.
    """

    def __init__(self, source: str, packer: Packer, *, skipped_rows: int = 0, column: str = "text") -> None:
        self.source, self.packer, self.skipped_rows = source, packer, skipped_rows
        self.documents = corpus.stream_documents(source, column)
        self.position = START  # before the rows that were read last
        self.passes = 0  # completed passes over the text
        self._row_groups: Generator[RowGroup, None, None] | None = None
        self._buffered: list[RowGroup] = []
        self._next_row = 0  # number of the first row not yet in memory

    def read(self, start: int, count: int) -> list[Ids]:
        """Return `count` rows from number `start` on; unread rows before it are skipped."""
        first = min([self._next_row, *(group.position["row"] for group in self._buffered)])
        if self._row_groups is None or start < first:
            self.position = self.position if self.position["row"] <= start else START
            self._row_groups, self._buffered, self._next_row = self._read_from(self.position), [], self.position["row"]
        if start > self._next_row:
            self._skip_to(start)
        while self._next_row < start + count:
            self._read_group()
        self._buffered = [group for group in self._buffered if group.end > start]
        self.position = self._buffered[0].position
        rows = [row for group in self._buffered for row in group.rows]
        return rows[start - self.position["row"] :][:count]

    def _read_group(self) -> None:
        assert self._row_groups is not None
        self._buffered.append(next(self._row_groups))
        self._next_row = self._buffered[-1].end

    def _skip_to(self, start: int) -> None:
        rows = start - self._next_row
        with track("skip text", rows, unit="rows", quiet=rows < BUFFER_ROWS) as advance:
            while self._next_row < start:
                before = self._next_row
                self._read_group()
                self._buffered = self._buffered[-1:]
                advance(min(self._next_row, start) - before)

    def _read_from(self, position: Position) -> Generator[RowGroup, None, None]:
        packer = copy.copy(self.packer)
        packer.rest = np.array(position["rest"], dtype=packer.encoder.dtype)
        for texts, documents in self._groups(position["documents"]):
            rows = packer.rows(packer.encoder(texts))
            skipped = min(len(rows), max(0, self.skipped_rows - position["row_of_pass"]))
            yield RowGroup(position, rows[skipped:])
            row_of_pass = position["row_of_pass"] + len(rows)
            if documents is None:
                if row_of_pass <= self.skipped_rows:
                    raise DistilkitError(
                        f"corpus '{self.source}' is too short for --streaming: remove it, or give more text"
                    )
                self.passes, row_of_pass, packer.rest = self.passes + 1, 0, packer.rest[:0]
            position = Position(
                row=position["row"] + len(rows) - skipped,
                row_of_pass=row_of_pass,
                rest=packer.rest.tolist(),
                documents=documents,
            )

    def _groups(self, state: dict[str, Any] | None) -> Iterator[tuple[list[str], dict[str, Any] | None]]:
        """Yield groups of documents, each with datasets' state after it; an empty group marks the end of the text."""
        with corpus.corpus_errors(self.source):
            while True:
                documents = copy.deepcopy(self.documents)  # The original would keep the state and never start over.
                if state:
                    documents.load_state_dict(state)
                for texts in group_texts(row["text"] for row in documents):
                    yield texts, documents.state_dict()
                yield [], None
                state = None


def split_stream(
    source: str, packer: Packer, heldout_blocks: int, column: str = "text"
) -> tuple[RowStream, list[dict[str, Ids]]]:
    """Split a stream: return (all further rows, the first rows), for training and for the held-out loss."""
    first = RowStream(source, packer, column=column)
    heldout = first.read(0, heldout_blocks)
    if first.passes:
        raise DistilkitError(
            f"corpus '{source}' is too short to reserve {heldout_blocks} held-out blocks: give --heldout, or "
            "remove --streaming"
        )
    return RowStream(source, packer, skipped_rows=len(heldout), column=column), [{"input_ids": row} for row in heldout]


class StreamedBatches(Batches):
    """Numbered micro-batches of a stream; each buffer of rows is shuffled like an epoch of Batches."""

    def __init__(self, stream: RowStream, collate: Collate, *, batch_size: int, seed: int) -> None:
        super().__init__([], collate, batch_size=batch_size, seed=seed)
        self.stream = stream
        self.per_epoch = max(1, BUFFER_ROWS // batch_size)  # batches per buffer

    def _start_epoch(self, epoch: int) -> None:
        size = self.per_epoch * self.batch_size
        rows = self.stream.read(epoch * size, size)
        self.rows = [{"input_ids": row} for row in rows]
        if self.stream.packer.packing == "documents":
            self.lengths = torch.tensor([len(row) for row in rows])
        super()._start_epoch(epoch)

    def state_dict(self) -> Position:
        """Return the position from which a resumed run can read."""
        return self.stream.position

    def load_state_dict(self, position: Position) -> None:
        """Start reading at a position, unless the requested rows lie before it."""
        self.stream.position = position
