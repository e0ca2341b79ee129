"""The weight files of a checkpoint: find them and map their tensors into memory, without a model."""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.hub import cached_file

from distilkit.errors import DistilkitError, library_errors
from distilkit.files import is_exported
from distilkit.hub import hub_errors, split_revision

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
PRECISIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # of weights that are not quantised


def read_tensors(name: str, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by their names in its files; `name` is a directory or a hub id.

    They are mapped from the files: a tensor takes time and memory only when it is used.
    Raises DistilkitError if there are no weights, if they are only available as a pickle (unless `allow_pickle`, which
    unpickles tensors only), or if they are damaged or quantised.
    """
    if is_exported(name):
        raise DistilkitError(f"'{name}' is an exported model: give the checkpoint that it was made from")
    files = find_files(name, SAFE)
    pickled = [] if files else find_files(name, PICKLED)
    if not files and not (pickled and allow_pickle):
        raise DistilkitError(
            f"'{name}' has no {SAFE}, and pickles are not read: convert its weights"
            " (distilkit init … --allow-pickle does)"
            if pickled
            else f"'{name}' has no weights (no {SAFE}): give a directory that save_pretrained wrote"
        )
    tensors: dict[str, Tensor] = {}
    for path in files or pickled:
        tensors |= _read_file(path, f"weights of '{name}'")
    return tensors


def widest(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """Return the precision that holds all of these tensors without rounding; fp32 for fp16 beside bf16."""
    kinds = {tensor.dtype for tensor in tensors.values()} & set(PRECISIONS)
    return functools.reduce(torch.promote_types, kinds) if kinds else torch.float32


def _read_file(path: Path, subject: str) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        with library_errors(f"{subject} cannot be read", f"save '{path.name}' again"):
            return load_file(path)
    with library_errors(f"{subject} cannot be read as tensors alone", "convert them to safetensors"):
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise DistilkitError(f"{subject} contain more than tensors: convert them to safetensors")
    return tensors


def find_files(name: str, file: str) -> list[Path]:
    """Return the file of a checkpoint, or the files that its index names; [] if it has neither.

    Raises DistilkitError if the index is damaged or names a file that is not there.
    """
    if (single := _locate(name, file)) is not None:
        return [single]
    index = _locate(name, f"{file}.index.json")
    if index is None:
        return []
    found = {part: _locate(name, part) for part in _parts(index, name)}
    if lacking := sorted(part for part, path in found.items() if path is None):
        raise DistilkitError(f"'{name}' lacks '{lacking[0]}', which its {index.name} names: copy the checkpoint again")
    return [path for path in found.values() if path is not None]


def _parts(index: Path, name: str) -> list[str]:
    """Return the names of the files in an index: `weight_map` gives the file of each tensor."""
    remedy = "copy the checkpoint again"
    with library_errors(f"'{name}' has a {index.name} that cannot be read", remedy):
        document = json.loads(index.read_text(encoding="utf-8"))
    table = document.get("weight_map") if isinstance(document, dict) else None
    entries = list(table.values()) if isinstance(table, dict) else []
    if not entries or not all(isinstance(part, str) and part and Path(part).name == part for part in entries):
        raise DistilkitError(f"'{name}' has a {index.name} without a weight_map of tensors and files: {remedy}")
    return sorted(set(entries))


def _locate(name: str, file: str) -> Path | None:
    if Path(name).is_dir():
        path = Path(name) / file
        return path if os.path.isfile(path) else None  # noqa: PTH113 - is_file() raises on a name that is too long
    place, revision = split_revision(name)
    with hub_errors(name):
        found = cached_file(place, file, revision=revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)
