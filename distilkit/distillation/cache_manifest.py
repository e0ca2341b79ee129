"""manifest.json of a teacher cache: what its answers are to, so that another run can tell whether they are its own."""

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerBase

import distilkit
from distilkit.encoders.checkpoint import weights_hash
from distilkit.errors import DistilkitError
from distilkit.files import UNWRITABLE, write_text
from distilkit.options.distill import DistillOptions
from distilkit.options.spec import flag
from distilkit.record import json_text

MANIFEST = "manifest.json"
SCHEMA = 1
OPTIONS = ("seq_length", "mask_probability", "temperature", "cache_size", "cache_maskings")
MADE_FOR = {  # what else has to be the same
    "schema": "by another version of distilkit",
    "teacher": "for another teacher",
    "tokenizer": "for another tokenizer",
    "vocabulary": "for a vocabulary of another size",
    "corpus": "for other text (--corpus, --heldout)",
}


def describe(
    config: DistillOptions,
    teacher: str,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: int,
    blocks: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what a run's answers are to: OPTIONS and MADE_FOR, and what is only good to know."""
    corpus, tokens = fingerprint(blocks)
    return {
        "schema": SCHEMA,
        "teacher": weights_hash(teacher),
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "vocabulary": vocabulary,
        "corpus": corpus,
        "blocks": len(blocks),
        "tokens": tokens,
        **{name: getattr(config, name) for name in OPTIONS},
        "seed": cache_seed(config),
        "precision": config.precision,
        "versions": {module.__name__: module.__version__ for module in (distilkit, torch, transformers)},
    }


def cache_seed(config: DistillOptions) -> int:
    """Return the seed of held-out text and static masks: with a cache, that of the run which made it, else --seed."""
    if config.teacher_cache is None:
        return config.seed
    return int(read_manifest(config.teacher_cache).get("seed", config.seed))


def fingerprint(blocks: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Return a hash of token ids and their boundaries, and how many tokens there are."""
    digest, tokens = hashlib.sha256(), 0
    for row in blocks:
        ids = np.asarray(row["input_ids"], dtype=np.int32)
        digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
        tokens += len(ids)
    return digest.hexdigest(), tokens


def claim_cache(directory: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a directory, written where it is empty.

    Raises DistilkitError where it holds something else, saying what differs.
    """
    found = read_manifest(directory)
    if not found:
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            if any(not path.name.startswith(".") for path in directory.iterdir()):
                raise DistilkitError(f"'{directory}' holds other files: give another --teacher-cache")
            save_manifest(directory, about)
        return dict(about)
    if (kind := found.get("cache_logits", "sampled")) != "sampled":  # only older versions write this
        raise DistilkitError(
            f"the cache in '{directory}' was made by an older distilkit with --cache-logits {kind}, which is no longer "
            "supported: give another --teacher-cache"
        )
    for name in OPTIONS:
        if found.get(name) != about[name]:
            raise DistilkitError(
                f"the cache in '{directory}' was made with {flag(name)} {found.get(name)}, not {about[name]}: "
                "give another --teacher-cache"
            )
    for name, words in MADE_FOR.items():
        if found.get(name) != about[name]:
            raise DistilkitError(f"the cache in '{directory}' was made {words}: give another --teacher-cache")
    return found


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return a cache's manifest, {} where there is none."""
    try:
        found = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DistilkitError(f"'{directory}' has no {MANIFEST} that can be read: give another --teacher-cache")
    return found


def save_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json atomically; several runs may start on the same cache."""
    write_text(directory / MANIFEST, json_text(dict(manifest)) + "\n")


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn a full disk and the like into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*UNWRITABLE, errno.ENOENT):  # ENOENT: a place where no directory can be made
            raise
        raise DistilkitError(
            f"cannot write '{directory}' ({error.strerror}): free space or give another --teacher-cache"
        ) from None
