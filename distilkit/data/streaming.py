"""Micro-batches of a text too large to store: tokenised while it is read, shuffled in a buffer of rows."""

import copy
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch

from distilkit.data import corpus
from distilkit.data.batches import Batches, Collate
from distilkit.data.packing import Ids, Packer, group
from distilkit.data.readers import readable
from distilkit.errors import DistilkitError
from distilkit.progress import track

BUFFER = 2**14  # rows to shuffle together: 4 MB at 128 tokens each


class Place(TypedDict):
    """A position from which reading can start: between two groups of documents."""

    row: int  # rows before it since the start
    row_of_pass: int  # rows before it in this pass over the text, skipped ones included
    rest: list[int]  # tokens before it that don't fill a row yet
    documents: dict[str, Any] | None  # datasets' own state, None at the start of a pass


class Part(NamedTuple):
    """The rows that a group of documents completes, and the place before it."""

    place: Place
    rows: list[Ids]

    @property
    def end(self) -> int:
        return self.place["row"] + len(self.rows)


START = Place(row=0, row_of_pass=0, rest=[], documents=None)


class RowStream:
    """An endless stream of packed rows: row n depends only on the text and n.

    Every pass over the text yields the same rows, except for the first `left_out`, which are skipped. A checkpoint
    stores `place`; reading continues from there without tokenising the text before it.
    """

    def __init__(self, source: str, packer: Packer, *, left_out: int = 0) -> None:
        self.source, self.packer, self.left_out = source, packer, left_out
        self.documents = corpus.stream_documents(source)
        self.place = START  # before the rows that were read last
        self.passes = 0  # completed passes over the text
        self._parts: Generator[Part, None, None] | None = None
        self._held: list[Part] = []
        self._next = 0  # number of the first row not yet in memory

    def read(self, start: int, count: int) -> list[Ids]:
        """Return `count` rows from number `start` on; unread rows before it are skipped."""
        if self._parts is None or start < min(self._next, *(part.place["row"] for part in self._held)):
            self.place = self.place if self.place["row"] <= start else START
            self._parts, self._held, self._next = self._read_from(self.place), [], self.place["row"]
        if start > self._next:
            self._skip_to(start)
        while self._next < start + count:
            self._read_part()
        self._held = [part for part in self._held if part.end > start]
        self.place = self._held[0].place
        rows = [row for part in self._held for row in part.rows]
        return rows[start - self.place["row"] :][:count]

    def _read_part(self) -> None:
        assert self._parts is not None
        self._held.append(next(self._parts))
        self._next = self._held[-1].end

    def _skip_to(self, start: int) -> None:
        rows = start - self._next
        with track("skip text", rows, unit="rows", quiet=rows < BUFFER) as advance:
            while self._next < start:
                before = self._next
                self._read_part()
                self._held = self._held[-1:]
                advance(min(self._next, start) - before)

    def _read_from(self, place: Place) -> Generator[Part, None, None]:
        packer = copy.copy(self.packer)
        packer.rest = np.array(place["rest"], dtype=packer.encoder.dtype)
        for texts, documents in self._groups(place["documents"]):
            rows = packer.rows(packer.encoder(texts))
            left = min(len(rows), max(0, self.left_out - place["row_of_pass"]))
            yield Part(place, rows[left:])
            row_of_pass = place["row_of_pass"] + len(rows)
            if documents is None:
                if row_of_pass <= self.left_out:
                    raise DistilkitError(
                        f"corpus '{self.source}' is too short for --streaming: remove it, or give more text"
                    )
                self.passes, row_of_pass, packer.rest = self.passes + 1, 0, packer.rest[:0]
            place = Place(
                row=place["row"] + len(rows) - left,
                row_of_pass=row_of_pass,
                rest=packer.rest.tolist(),
                documents=documents,
            )

    def _groups(self, state: dict[str, Any] | None) -> Iterator[tuple[list[str], dict[str, Any] | None]]:
        """Yield groups of documents, each with datasets' state after it; an empty group marks the end of the text."""
        with readable(self.source):
            while True:
                documents = copy.deepcopy(self.documents)  # datasets' object would keep the state and never start over
                if state:
                    documents.load_state_dict(state)
                for texts in group(row["text"] for row in documents):
                    yield texts, documents.state_dict()
                yield [], None
                state = None


def set_aside(source: str, packer: Packer) -> tuple[RowStream, list[dict[str, Ids]]]:
    """Reserve the first rows of a stream for the held-out loss; return (training, held out)."""
    first = RowStream(source, packer)
    heldout = first.read(0, corpus.HELDOUT_BLOCKS)
    if first.passes:
        raise DistilkitError(
            f"corpus '{source}' is too short to reserve {corpus.HELDOUT_BLOCKS} held-out blocks: give --heldout, or "
            "remove --streaming"
        )
    return RowStream(source, packer, left_out=len(heldout)), [{"input_ids": row} for row in heldout]


class StreamedBatches(Batches):
    """Numbered micro-batches of a stream; each buffer of rows is shuffled like an epoch of Batches."""

    def __init__(self, stream: RowStream, collate: Collate, *, batch_size: int, seed: int) -> None:
        super().__init__([], collate, batch_size=batch_size, seed=seed)
        self.stream = stream
        self.per_epoch = max(1, BUFFER // batch_size)  # batches a buffer

    def _open(self, epoch: int) -> None:
        size = self.per_epoch * self.batch_size
        rows = self.stream.read(epoch * size, size)
        self.rows = [{"input_ids": row} for row in rows]
        if self.stream.packer.packing == "documents":
            self.lengths = torch.tensor([len(row) for row in rows])
        super()._open(epoch)

    def state_dict(self) -> Place:
        """Return the place from which a resumed run can read."""
        return self.stream.place

    def load_state_dict(self, place: Place) -> None:
        """Start reading at a place, unless the requested rows lie before it."""
        self.stream.place = place
