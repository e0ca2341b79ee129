"""Rows and token ids on disk: written once under a key, then memory-mapped."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable

from distilkit.claims import hold
from distilkit.data.packing import Ids
from distilkit.data.readers import cache_unwritable
from distilkit.errors import UnwritableError
from distilkit.files import NO_SPACE, replacing, sync, writing

Batches = tuple[pa.Schema, Iterable[pa.RecordBatch]]


def store(key: str, dtype: np.dtype[Any], make: Callable[[], Iterable[list[Ids]]]) -> Dataset:
    """Return the rows of token ids stored under this key, in one column `input_ids`; write them first if needed.

    See store_table().
    """
    schema = pa.schema({"input_ids": pa.list_(pa.from_numpy_dtype(dtype))})
    return store_table(key, lambda: (schema, (_record_batch(rows, schema) for rows in make() if rows)))


def store_table(key: str, make: Callable[[], Batches]) -> Dataset:
    """Return the data set stored under this key in datasets' cache; write it first if needed.

    The file is written atomically, so an existing file is complete. Processes that want the same file wait for the
    first. The key becomes the fingerprint of the data set, by which datasets names what it computes from it.
    Raises DistilkitError if the disk is full, or if the cache may not be written.
    """
    path = Path(datasets.config.HF_DATASETS_CACHE) / "distilkit" / f"{key}.arrow"
    try:
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.exists():
                with replacing(path) as partial:
                    _write(partial, *make())
                sync(path.parent)
    except (OSError, UnwritableError) as error:
        if isinstance(error, OSError) and error.errno not in NO_SPACE:
            raise
        raise cache_unwritable(str(error)) from None
    return Dataset(MemoryMappedTable.from_file(str(path)), fingerprint=key)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with writing(path):
        file = path.open("w")
    with file:
        hold(file.fileno(), wait=True)
        yield


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _record_batch(rows: list[Ids], schema: pa.Schema) -> pa.RecordBatch:
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)
    return pa.record_batch([pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))], schema=schema)


class Rows(Sequence[dict[str, Ids]]):
    """Rows of a stored data set, all or a selection: views into the memory map, one or two microseconds each."""

    def __init__(self, stored: Dataset, chosen: Ids | None = None) -> None:
        chunks = [chunk for chunk in stored.data.column("input_ids").chunks if len(chunk)]
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._starts = list(accumulate((len(chunk) for chunk in chunks), initial=0))
        self._chosen = chosen

    def __len__(self) -> int:
        return self._starts[-1] if self._chosen is None else len(self._chosen)

    def __getitem__(self, number: Any) -> Any:
        row = number if self._chosen is None else int(self._chosen[number])
        chunk = bisect_right(self._starts, row) - 1
        offsets, place = self._offsets[chunk], row - self._starts[chunk]
        return {"input_ids": self._values[chunk][offsets[place] : offsets[place + 1]]}

    @property
    def lengths(self) -> Ids:
        """The number of tokens of each row."""
        lengths = np.concatenate([np.diff(offsets) for offsets in self._offsets])
        return lengths if self._chosen is None else lengths[self._chosen]
