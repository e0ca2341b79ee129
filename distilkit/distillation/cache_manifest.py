"""manifest.json of a teacher cache: the inputs and options it was made with.

A run uses a cache only if its own inputs and options are the same.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerBase

import distilkit
from distilkit.claims import LOCK, locked
from distilkit.encoders.checkpoint import weights_hash
from distilkit.errors import DistilkitError
from distilkit.files import make_directory, read_json, write_text, writing
from distilkit.options.distill import DistillOptions
from distilkit.options.spec import flag
from distilkit.record import is_number, json_text

MANIFEST = "manifest.json"
SCHEMA = 1
REMEDY = "choose another --teacher-cache"
COSTS = ("asked", "fill_seconds", "teacher_seconds")  # sums over all runs that filled the cache
OPTIONS = ("seq_length", "mask_probability", "temperature", "cache_size", "cache_maskings")
INPUTS = {  # Keys that must be equal too, and how an error message ends if they are not.
    "schema": "by another version of distilkit",
    "teacher": "for another teacher",
    "tokenizer": "for another tokenizer",
    "vocabulary": "for a vocabulary of another size",
    "corpus": "for another text (--corpus, --heldout)",
}


def describe(
    options: DistillOptions,
    teacher: str,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: int,
    blocks: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the manifest of a run: OPTIONS and INPUTS, and further facts for people."""
    corpus, tokens = fingerprint(blocks)
    return {
        "schema": SCHEMA,
        "teacher": weights_hash(teacher),
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "vocabulary": vocabulary,
        "corpus": corpus,
        "blocks": len(blocks),
        "tokens": tokens,
        **{name: getattr(options, name) for name in OPTIONS},
        "seed": cache_seed(options),
        "precision": options.precision,
        "versions": {module.__name__: module.__version__ for module in (distilkit, torch, transformers)},
    }


def cache_seed(options: DistillOptions) -> int:
    """Return the seed of the held-out split and of static masks: the one the cache was made with, else --seed."""
    if options.teacher_cache is None:
        return options.seed
    return int(read_manifest(options.teacher_cache).get("seed", options.seed))


def fingerprint(blocks: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Return a hash of the token ids and block boundaries, and the number of tokens."""
    digest, tokens = hashlib.sha256(), 0
    for row in blocks:
        ids = np.asarray(row["input_ids"], dtype=np.int32)
        digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
        tokens += len(ids)
    return digest.hexdigest(), tokens


def claim_cache(directory: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a cache directory. Write the wanted one first if the directory is new or empty.

    Raises DistilkitError if the manifest there differs in OPTIONS or INPUTS; the message names the difference.
    """
    if not (found := read_manifest(directory)):
        with writing(f"--teacher-cache '{directory}'"), ExitStack() as stack:
            make_directory(directory)
            stack.enter_context(locked(directory / LOCK, "", wait=True))  # another run may start on the same cache
            if not (found := read_manifest(directory)):
                if any(not path.name.startswith(".") for path in directory.iterdir()):
                    raise DistilkitError(f"'{directory}' contains other files: choose another --teacher-cache")
                save_manifest(directory, wanted)
                return dict(wanted)
    if (kind := found.get("cache_logits", "sampled")) != "sampled":  # only older versions write this key
        raise DistilkitError(
            f"the cache in '{directory}' was made by an older distilkit with --cache-logits {kind}, which is no longer "
            "supported: choose another --teacher-cache"
        )
    for name in OPTIONS:
        if found.get(name) != wanted[name]:
            raise DistilkitError(
                f"the cache in '{directory}' was made with {flag(name)} {found.get(name)}, not {wanted[name]}: "
                "choose another --teacher-cache"
            )
    for name, difference in INPUTS.items():
        if found.get(name) != wanted[name]:
            raise DistilkitError(f"the cache in '{directory}' was made {difference}: choose another --teacher-cache")
    return found


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a cache directory, {} if it has none.

    Raises DistilkitError if it cannot be read, or if a value has another type than distilkit writes.
    """
    try:
        found = read_json(directory / MANIFEST)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DistilkitError(f"{MANIFEST} in '{directory}' cannot be read ({error}): {REMEDY}") from None
    if not isinstance(found, dict) or not found:
        raise DistilkitError(f"{MANIFEST} in '{directory}' cannot be read (it is not a manifest): {REMEDY}")
    for name in ("schema", "seed", "tokens", "blocks"):
        if type(found.get(name)) is not int or not (name in ("tokens", "blocks")) <= found[name] < 2**63:
            raise DistilkitError(f"{MANIFEST} in '{directory}' is damaged ({name} is {found.get(name)!r}): {REMEDY}")
    for name in COSTS:
        if not is_number(found.get(name, 0)):
            raise DistilkitError(f"{MANIFEST} in '{directory}' is damaged ({name} is {found[name]!r}): {REMEDY}")
    return found


def save_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json atomically, because several runs may start on the same cache."""
    write_text(directory / MANIFEST, json_text(dict(manifest)) + "\n")
