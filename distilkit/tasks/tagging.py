"""Tags for words: tokenise sentences that are given as words, and find each word's first token."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from distilkit.progress import warn
from distilkit.tasks.catalogue import Task
from distilkit.tasks.labels import OUTSIDE, label_to_target

PLACES, TAGS = "places", "tags"  # columns: the first token of each word, and the id of its tag
LOST = -1  # stands for the place, and the predicted tag, of a word without a token or whose first token was cut off

SCORED = f"they count as {OUTSIDE}, outside of all entities"


def encode(
    rows: Dataset, task: Task, tokenizer: PreTrainedTokenizerBase, inputs: Sequence[str], max_length: int
) -> Dataset:
    """Tokenise sentences, cut to `max_length` tokens, into `inputs`, `places` and, if the rows have tags, `tags`.

    Words are joined by spaces, so that they are tokenised as they are in text. Rows are not padded.
    """
    (column,) = task.text

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(
            [" ".join(words) for words in batch[column]],
            truncation=True,
            max_length=max_length,
            return_offsets_mapping=True,
            return_attention_mask=True,
            return_token_type_ids="token_type_ids" in inputs,
        )
        fields = {name: encoded[name] for name in inputs}
        fields[PLACES] = [
            first_tokens(words, offsets)
            for words, offsets in zip(batch[column], encoded["offset_mapping"], strict=True)
        ]
        if task.label in batch:
            fields[TAGS] = [label_to_target(task, tags) for tags in batch[task.label]]
        return fields

    return rows.map(tokenise, batched=True, remove_columns=rows.column_names)


def first_tokens(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the first token of each word, or LOST; `offsets` are the characters of each token, in words and spaces.

    A token that begins with the space before its word counts as a part of the word.
    """
    starts = accumulate((len(word) + 1 for word in words), initial=0)
    spans = [(start, start + len(word)) for start, word in zip(starts, words, strict=False)]
    places, token = [], 0
    for start, end in spans:
        while token < len(offsets) and offsets[token][1] <= start:  # special tokens are (0, 0)
            token += 1
        found = token < len(offsets) and offsets[token][0] < end
        places.append(token if found else LOST)
    return places


def warn_if_lost(places: Iterable[Sequence[int]], source: str, effect: str) -> None:
    """Warn how many words are LOST in `places` (or in predicted tags, which mark them alike), and to what effect."""
    found = [place for row in places for place in row]
    if lost := found.count(LOST):
        warn(
            f"{lost:,} of {len(found):,} words of {source} are beyond --max-length or have no token: {effect} "
            "(raise --max-length, or split the sentences)"
        )
