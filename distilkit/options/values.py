"""Check and convert option values, wherever they come from: the command line, a recipe, Python or a record."""

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from distilkit.errors import OptionError
from distilkit.options.spec import Spec, base_type, bounds, flag, is_list, spec_of, typed_name

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4096  # of a file, and with all its folders


def check(item: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    """Return a value in its option's own type. Raises ValueError with what the option takes instead."""
    if value is None and (item.default is None or base_type(item.type) is not item.type):
        return None
    if get_origin(kind) is tuple:
        entries = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if not entries and item.default:
            raise ValueError("one value or more")
        return tuple(_check_one(spec_of(item), get_args(kind)[0], entry) for entry in entries)
    return _check_one(spec_of(item), kind, value)


def _check_one(spec: Spec, kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"one of {', '.join(get_args(kind))}{did_you_mean(value, get_args(kind))}")
        return value
    if kind in (str, Path):
        return kind(_check_text(value, is_path=kind is Path or spec.is_path))
    if kind is bool:
        if type(value) is not bool:
            raise ValueError("true or false")
        return value
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError({int: "a whole number", float: "a number"}[kind])
    if (type(value) is float and not math.isfinite(value)) or not _lies_between(spec, value):
        raise ValueError(f"a number{bounds(spec)}")
    return kind(value)


def _check_text(value: Any, *, is_path: bool) -> str:
    if not isinstance(value, (str, Path)):
        raise ValueError("text")  # noqa: TRY004 - what check() raises
    if not str(value):
        raise ValueError("a value that is not empty")
    if is_path and not is_path_text(str(value)):
        raise ValueError(f"a path with names of at most {MAX_NAME_BYTES} letters")
    return str(value)


def is_path_text(text: str) -> bool:
    """Say whether the system takes a text as a path: long names and null characters raise errors everywhere."""
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return b"\0" not in name and len(name) < MAX_PATH_BYTES and max(map(len, name.split(b"/"))) <= MAX_NAME_BYTES


def _lies_between(spec: Spec, value: float) -> bool:
    return (spec.min is None or value >= spec.min) and (spec.max is None or value <= spec.max)


def did_you_mean(value: Any, names: Any, folder: Path = Path()) -> str:
    """Suggest the nearest of some names, which are in a folder if they are files; "" if none is near."""
    import difflib  # only an error needs it, and every --help would pay for it

    near = difflib.get_close_matches(str(value), list(names), n=1)
    return f" (did you mean '{folder / near[0]}'?)" if near else ""


def parse(item: dataclasses.Field[Any], kind: Any, text: Any) -> Any:
    """Turn what was typed into an option's own type. Raises OptionError."""
    try:
        return check(item, kind, _parse(item, kind, text))
    except ValueError as error:
        shown = ",".join(text) if isinstance(text, (list, tuple)) else text
        raise OptionError(f"{typed_name(item)} '{shown}': give {error}") from None


def _parse(item: dataclasses.Field[Any], kind: Any, text: Any) -> Any:
    if get_origin(kind) is not tuple:
        return _parse_one(kind, text)
    (entry_kind, *_) = get_args(kind)
    if not is_list(item, kind):
        return tuple(_parse_one(entry_kind, entry.strip()) for entry in text)
    try:
        return tuple(_parse_one(entry_kind, entry.strip()) for entry in text.split(","))
    except ValueError:
        raise ValueError("a list like 1,2,3") from None


def _parse_one(kind: Any, text: Any) -> Any:
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "a whole number", float: "a number"}[kind]) from None


def inside_text(name: str, output: Path, **texts: str | None) -> Iterator[str]:
    """Yield an error line for each text folder that contains the output: the run would change its own input."""
    for text_name, text in texts.items():
        folder = Path(text).resolve() if text and Path(text).is_dir() else None
        if folder and output.resolve().is_relative_to(folder):
            yield f"{name} '{output}' lies inside the text of {flag(text_name)} '{text}': choose a place outside it"
