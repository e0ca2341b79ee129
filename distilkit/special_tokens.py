"""A tokenizer's special tokens: which ones a command needs, and which stand in for one that is missing."""

from collections.abc import Sequence
from typing import Any, Literal

from distilkit.errors import DistilkitError

Special = Literal["pad", "cls", "sep", "mask"]
STAND_INS: dict[str, str] = {"cls": "bos", "sep": "eos"}


def special_id(tokenizer: Any, kind: Special) -> int | None:
    """Return the id of a special token; BOS and EOS stand in for CLS and SEP. None if there is neither."""
    ids = (getattr(tokenizer, f"{name}_token_id") for name in (kind, STAND_INS.get(kind, kind)))
    return next((int(number) for number in ids if number is not None), None)


def check_special_tokens(tokenizer: Any, needs: Sequence[Special], name: str) -> None:
    """Raise DistilkitError if a tokenizer lacks a special token that the command needs; `name` is its checkpoint."""
    lacking = [kind for kind in needs if special_id(tokenizer, kind) is None]
    if lacking:
        raise DistilkitError(
            f"the tokenizer of '{name}' has no {' or '.join(kind.upper() for kind in lacking)} token, which this "
            f"command needs: set {' and '.join(f'{kind}_token' for kind in lacking)} in its tokenizer_config.json"
        )


def check_limit(tokenizer: Any, name: str) -> None:
    """Raise DistilkitError if a tokenizer's maximum length leaves no token for a text; `name` is its checkpoint."""
    limit, special = tokenizer.model_max_length, tokenizer.num_special_tokens_to_add()
    if limit <= special:
        raise DistilkitError(
            f"the tokenizer of '{name}' has model_max_length {limit}, and {special} tokens are special: correct it in "
            "its tokenizer_config.json"
        )


def vocabulary_size(tokenizer: Any) -> int:
    """Return the largest token id + 1, which is more than the number of tokens if ids are left out."""
    return 1 + int(max(tokenizer.get_vocab().values(), default=0))
