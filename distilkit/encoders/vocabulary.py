"""Prune a vocabulary: count the tokens of a text, rewrite the tokenizer, cut the embeddings."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint
from distilkit.encoders.surgery import assign_tensors, build_empty, changed_config, tensors_by_name
from distilkit.errors import DistilkitError
from distilkit.progress import track

Ids = npt.NDArray[np.int64]
BATCH_DOCUMENTS = 200


def count_tokens(documents: Dataset, tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Return how often each token of the vocabulary occurs in the documents, (V,)."""
    total: Ids = np.zeros(1 + max(tokenizer.get_vocab().values()), dtype=np.int64)
    for texts in _batches(documents, "count tokens"):
        ids = np.concatenate([[], *_split(texts, tokenizer)]).astype(np.int64)
        total += np.bincount(ids, minlength=len(total))
    return total


def _batches(documents: Dataset, label: str) -> Iterator[list[str]]:
    with track(label, len(documents), unit="documents") as advance:
        for start in range(0, len(documents), BATCH_DOCUMENTS):
            texts = [text or "" for text in documents[start : start + BATCH_DOCUMENTS]["text"]]
            yield texts
            advance(len(texts))


def _split(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def choose_tokens(counts: Ids, tokenizer: PreTrainedTokenizerBase, limit: int | None = None) -> list[int]:
    """Return the ids to keep, ascending: the tokens that occur (the `limit` most frequent), plus those that they need.

    These are special and added tokens; the single characters of kept tokens, so that new words still have tokens; bytes
    if the tokenizer falls back on them; and the intermediate tokens of BPE merges.
    """
    vocabulary = tokenizer.get_vocab()
    used = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]][:limit]
    kept = {*used, *tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = {i: token for token, i in vocabulary.items()}
    letters = {letter for i in kept if i in names for letter in names[i]} | set(ByteLevel.alphabet())
    prefix = model.get("continuing_subword_prefix") or ""
    single = {*letters, *(prefix + letter for letter in letters), *(f"<0x{byte:02X}>" for byte in range(256))}
    tokens = {names[i] for i in kept if i in names} | (single & vocabulary.keys())
    merged_from = dict[str, set[str]]()
    for left, right in _merges(model):
        merged_from.setdefault(left + right.removeprefix(prefix), set()).update((left, right))
    waiting = list(tokens)
    while waiting:
        new = merged_from.get(waiting.pop(), set()) - tokens
        tokens |= new
        waiting += new
    return sorted(kept | {vocabulary[token] for token in tokens})


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges") or ())
    return [(left, right) for left, right in pairs]


def rewrite_tokenizer(definition: str, kept: Sequence[int]) -> str:
    """Return the text of a tokenizer.json with only the kept ids, renumbered from 0 in their order.

    Raises DistilkitError for a tokenizer other than WordPiece, BPE, Unigram and WordLevel.
    """
    document = json.loads(definition)
    model, new = document["model"], {old: number for number, old in enumerate(kept)}
    kind = model.get("type")
    if kind == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
        model["unk_id"] = new.get(model["unk_id"])
    elif kind in ("WordPiece", "BPE", "WordLevel"):
        model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
    else:
        raise DistilkitError(f"--vocabulary cannot rewrite a {kind} tokenizer: remove --vocabulary")
    if kind == "BPE":
        prefix = model.get("continuing_subword_prefix") or ""
        known = model["vocab"]
        model["merges"] = [
            [left, right]
            for left, right in _merges(model)
            if {left, right, left + right.removeprefix(prefix)} <= known.keys()
        ]
    document["added_tokens"] = [
        token | {"id": new[token["id"]]} for token in document["added_tokens"] if token["id"] in new
    ]
    document["padding"] = None  # It contains an id. Every caller sets its own padding.
    document["post_processor"] = _renumber(document["post_processor"], new)
    return json.dumps(document, ensure_ascii=False)


def _renumber(node: Any, new: dict[int, int]) -> Any:
    """Renumber the ids in a post-processor: {"ids": […]} in templates, ["</s>", 2] elsewhere."""
    if isinstance(node, list):
        if len(node) == 2 and isinstance(node[0], str) and isinstance(node[1], int):
            return [node[0], new[node[1]]]
        return [_renumber(item, new) for item in node]
    if isinstance(node, dict):
        return {key: [new[i] for i in value] if key == "ids" else _renumber(value, new) for key, value in node.items()}
    return node


def find_differences(
    documents: Dataset, before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, kept: Sequence[int]
) -> Iterator[str]:
    """Yield the documents that two tokenizers split differently; the second has only the kept ids."""
    old = np.array(kept)
    for texts in _batches(documents, "compare tokens"):
        for text, ours, theirs in zip(texts, _split(texts, before), _split(texts, after), strict=True):
            if ours != old[theirs].tolist():
                yield text


def find_tokens_inside(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of all tokens that occur inside the words of the texts."""
    backend = tokenizer.backend_tokenizer
    words = set[str]()
    for text in texts:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        words |= (
            {word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)} if backend.pre_tokenizer else {text}
        )
    vocabulary, prefix = tokenizer.get_vocab(), getattr(backend.model, "continuing_subword_prefix", None) or ""
    found = set[int]()
    for word in words:
        spans = {word[i:j] for i in range(len(word)) for j in range(i + 1, min(len(word), i + 40) + 1)}
        found |= {vocabulary[form] for span in spans for form in (span, prefix + span) if form in vocabulary}
    return found


def to_vocabulary(
    model: PreTrainedModel, theirs: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Give a teacher the vocabulary of its student: `theirs` is its own tokenizer, `tokenizer` the student's.

    Returns the teacher itself if both are the same, or a pruned teacher if the student's is a part of its own.
    Raises DistilkitError if it is neither.
    """
    if checkpoint.same_vocabulary(theirs, tokenizer):
        return model
    if tokenizer.get_vocab().keys() < theirs.get_vocab().keys():
        return prune(model, shared_ids(tokenizer, theirs))
    raise different_vocabularies()


def different_vocabularies() -> DistilkitError:
    """Return the error for a student and a teacher whose predictions cannot be compared."""
    return DistilkitError(
        "teacher and student have different vocabularies: give a teacher with the student's tokenizer (--teacher; "
        "eval: --against)"
    )


def shared_ids(smaller: PreTrainedTokenizerBase, larger: PreTrainedTokenizerBase) -> list[int]:
    """Return the larger vocabulary's ids of the smaller one's tokens, in the smaller one's order."""
    ids, tokens = larger.get_vocab(), {number: token for token, number in smaller.get_vocab().items()}
    if sorted(tokens) != list(range(len(tokens))):
        raise different_vocabularies()  # ids are left out: the rows of both cannot be paired
    return [ids[tokens[number]] for number in range(len(tokens))]


def prune(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """Return a model with only the kept ids' rows of every per-token tensor; everything else is shared."""
    config, index = model.config, torch.tensor(kept)
    size, new = config.vocab_size, {old: number for number, old in enumerate(kept)}
    changes: dict[str, Any] = {config.attribute_map.get("vocab_size", "vocab_size"): len(kept)}
    for name, value in config.to_dict().items():
        if name.endswith(("_token_id", "_index")) and isinstance(value, int) and value in new:
            changes[name] = new[value]
    student = build_empty(model, changed_config(config, changes))
    shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    cut: dict[int, Tensor] = {}  # Tied tensors are cut once, so that they stay tied.

    def rows(tensor: Tensor, shape: torch.Size) -> Tensor:
        for axis, (had, wanted) in enumerate(zip(tensor.shape, shape, strict=True)):
            if had != wanted and (had, wanted) == (size, len(kept)):
                return cut.setdefault(id(tensor), tensor.index_select(axis, index.to(tensor.device)))
        return tensor

    return assign_tensors(
        student, {name: rows(tensor, shapes[name]) for name, tensor in tensors_by_name(model).items()}
    )
