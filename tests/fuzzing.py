"""Inputs that nobody thinks of: strategies and settings of the tests that read them."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from distilkit.errors import DistilkitError

EXAMPLES = int(os.environ.get("DISTILKIT_FUZZ_EXAMPLES", "10000"))
many = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip

odd_text = st.one_of(st.text(max_size=12), st.sampled_from(["", "\0", "\x1b[31m", "a\nb", "\ud800", "nan", "9" * 4400]))
odd_number = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 2**32, 2**63, 10**22, 10**400, math.nan, math.inf, 1e300])
)
odd_value = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_number, odd_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(odd_text, inner, max_size=4)),
    max_leaves=12,
)


def as_json(document: Any) -> str:
    """Write JSON as other programs do, with NaN and Infinity; halves of letters stay escapes."""
    return json.dumps(document)


def damaged(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Cut a text, change a byte of it, or leave it whole."""

    def damage(parts: tuple[str, int, int, int]) -> bytes:
        content, kind, place, byte = parts
        data = bytearray(content.encode("utf-8", "surrogatepass"))
        if kind == 0 and data:
            data[place % len(data)] = byte
        return bytes(data[: place % (len(data) + 1)] if kind == 1 else data)

    return st.tuples(texts, st.integers(0, 3), st.integers(0, 10**6), st.integers(0, 255)).map(damage)


def changed(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Change, drop or add a few values of a valid object."""
    keys = st.one_of(st.sampled_from(sorted(document)), odd_text)
    return st.dictionaries(keys, st.one_of(odd_value, st.just(...)), max_size=3).map(
        lambda changes: {key: value for key, value in {**document, **changes}.items() if value is not ...}
    )


def check_file(path: Path, data: bytes, read: Callable[[], Any]) -> Any:
    """Write a file and read it; None if that is an error of the user's."""
    path.write_bytes(data)
    try:
        return read()
    except DistilkitError:
        return None
