"""Special tokens: what stands in for a missing one, and what a command is told that it lacks."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from distilkit.errors import DistilkitError
from distilkit.special_tokens import check_limit, check_special_tokens, special_id, vocabulary_size

NONE = dict.fromkeys(("pad", "cls", "sep", "mask", "bos", "eos"))


def tokenizer(**ids: int) -> SimpleNamespace:
    return SimpleNamespace(**{f"{name}_token_id": number for name, number in (NONE | ids).items()})


def test_bos_and_eos_stand_in_for_cls_and_sep() -> None:
    """A tokenizer with its own CLS uses it; id 0 is an id."""
    both = tokenizer(cls=0, bos=5, eos=6)

    assert (special_id(both, "cls"), special_id(both, "sep"), special_id(both, "mask")) == (0, 6, None)


@pytest.mark.parametrize(
    ("limit", "enough"), [(512, True), (3, True), (1e30, True), (2, False), (0, False), (-3, False)]
)
def test_a_limit_leaves_room_for_a_text(limit: float, enough: bool) -> None:
    """Two special tokens and one of the text are three."""
    short = SimpleNamespace(model_max_length=limit, num_special_tokens_to_add=lambda: 2)
    with nullcontext() if enough else pytest.raises(DistilkitError, match=f"'m' has model_max_length {limit}, and 2"):
        check_limit(short, "m")


def test_what_is_lacking_is_named_together() -> None:
    """One line for all of them, with the checkpoint's name."""
    check_special_tokens(tokenizer(bos=1, eos=2, mask=3), ["cls", "sep", "mask"], "m")
    with pytest.raises(DistilkitError, match=r"'m' has no CLS or MASK token.*cls_token and mask_token"):
        check_special_tokens(tokenizer(sep=2), ["cls", "sep", "mask"], "m")


def test_the_largest_id_counts() -> None:
    """Three tokens, the last with id 9, need 10 rows of embeddings."""
    assert vocabulary_size(SimpleNamespace(get_vocab=lambda: {"a": 0, "b": 4, "c": 9})) == 10
