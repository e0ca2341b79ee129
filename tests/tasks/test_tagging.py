"""Words to tokens: first tokens, cut-off words, tags beside them."""

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from distilkit.tasks import tagging
from distilkit.tasks.catalogue import METRICS, Task
from distilkit.tasks.encoding import collator

TASK = Task("custom", "tokens", ("tokens",), METRICS["tokens"], ("B-PER", "O"), label="ner_tags")
ROWS = Dataset.from_dict(
    {
        "tokens": [["Return", "unpredictability", "", "of", "\u200b", "x-y"], ["seed"]],
        "ner_tags": [["O", "B-PER", "O", "O", "O", "B-PER"], ["B-PER"]],
    }
)


def test_a_words_place_is_that_of_transformers_word_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    """The first token of each word is the one that is_split_into_words gives; words without a token have none."""
    encoded = tagging.encode(ROWS, TASK, tokenizer, ["input_ids"], 64)
    expected = tokenizer(ROWS["tokens"][:], is_split_into_words=True)
    for row, words in enumerate(ROWS["tokens"]):
        ids = expected.word_ids(row)
        assert encoded["input_ids"][row] == expected["input_ids"][row]
        assert encoded["places"][row] == [ids.index(word) if word in ids else -1 for word in range(len(words))]
    assert encoded["places"][0].count(-1) == 2  # the empty word and the one of no width
    assert encoded["tags"][:] == [[1, 0, 1, 1, 1, 0], [0]]


def test_words_beyond_the_length_are_lost(
    tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have no place, and a line says how many."""
    places = tagging.encode(ROWS, TASK, tokenizer, ["input_ids"], 4)["places"]
    assert places[0][0] == 1
    assert places[0][2:] == [-1] * 4
    tagging.warn_if_lost(places, "custom", "they count as O")
    assert f"{sum(map(places[0].count, [-1]))} of 7 words of custom" in capsys.readouterr().err


def test_a_batch_pads_words_apart_from_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """Places and tags have a column for each word, -1 where a sentence has none."""
    encoded = tagging.encode(ROWS, TASK, tokenizer, ["input_ids", "attention_mask"], 64)
    batch = collator(tokenizer)([encoded[0], encoded[1]])
    assert batch["tags"].tolist() == [[1, 0, 1, 1, 1, 0], [0, -1, -1, -1, -1, -1]]
    assert batch["places"][1].tolist() == [1, -1, -1, -1, -1, -1]
    assert batch["input_ids"].shape[1] > 6


@pytest.mark.parametrize("before", [0, 1])
def test_a_space_may_belong_to_the_next_token(before: int) -> None:
    """Tokenizers that put the space in front of a word count it in their offsets or not."""
    assert tagging.first_tokens(["ab", "c"], [(0, 0), (0, 2), (3 - before, 4), (0, 0)]) == [1, 2]
