"""Mistakes in paths that are found before the heavy libraries are loaded, all of them at once."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distilkit.claims import LOCK, refuse_file, refuse_used
from distilkit.errors import DistilkitError
from distilkit.hub import nearest
from distilkit.options.declare import Options
from distilkit.options.spec import fields_of, typed_name
from distilkit.record import is_output_of

CHECKPOINTS = ("model", "student", "teacher", "models", "against", "control")
TEXTS = ("corpus", "heldout", "data", "agreement", "predictions", "null_odds", "baseline", "directories")
FILE_ENDINGS = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".gz")


def check_places(command: str, options: Options) -> None:
    """Raise DistilkitError for every local path that does not exist, and for an output directory in use."""
    mistakes = [*missing_places(options), *used_output(command, options)]
    if mistakes:
        raise DistilkitError("; ".join(mistakes))


def missing_places(options: Options) -> Iterator[str]:
    """Yield an error line for each path that cannot be on the hub and does not exist here."""
    for item, _ in fields_of(type(options)):
        if item.name not in (*CHECKPOINTS, *TEXTS):
            continue
        value = getattr(options, item.name)
        for place in value if isinstance(value, tuple) else (value,):
            if place is None or os.path.lexists(place):
                continue
            hint, local = nearest(Path(place)), is_local(str(place))
            if item.name not in CHECKPOINTS:
                if local:
                    yield f"{typed_name(item)} '{place}' does not exist{hint}: check the path"
            elif local:
                yield f"no checkpoint directory '{place}'{hint}: check the path"
            elif hint and "/" in str(place) and "@" not in str(place):  # the hub, where it is not, takes long to say so
                yield f"no checkpoint directory '{place}'{hint}: check the path; for a hub id, write '{place}@main'"


def is_local(place: str) -> bool:
    """Say whether a name can only be a path of this machine: no hub id, address or pattern."""
    if "://" in place or any(letter in place for letter in "*?["):
        return False
    return place.startswith((".", "/", "~")) or place.count("/") > 1 or place.endswith(FILE_ENDINGS)


def used_output(command: str, options: Any) -> Iterator[str]:
    """Yield an error line for an output directory or file that the command would refuse."""
    output = getattr(options, "output", None)
    files = {"--examples": getattr(options, "examples", None), "--plot": getattr(options, "plot", None)}
    for option, path in ({"-o": output} if command == "predict" else files).items():
        if path is not None:
            yield from refused(refuse_file, path, option)
    unwritten = getattr(options, "dry_run", False) or (command == "distill" and getattr(options, "plan", False))
    if output is None or command == "predict" or unwritten:
        return
    if os.path.lexists(output / LOCK):  # a run that was killed, or still runs: the claim itself says which
        return
    if getattr(options, "resume", False) and (output / "run.json").exists():  # the command compares the options
        return
    nested = getattr(options, "seeds", 1) > 1 or getattr(options, "task", None) == "glue"
    keep = ("*/*" if nested else "*") if hasattr(options, "resume") else None
    replace = command == "report" and is_output_of(output, command)
    resume = bool(getattr(options, "resume", False))
    yield from refused(refuse_used, output, resume=resume, keep=keep, replace=replace)


def refused(check: Callable[..., None], *arguments: Any, **keywords: Any) -> Iterator[str]:
    """Yield the error line of a check that fails."""
    try:
        check(*arguments, **keywords)
    except DistilkitError as error:
        yield str(error)
