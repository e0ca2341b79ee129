"""Names on the Hugging Face hub, and what goes wrong on the way there, in plain words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilkit.errors import DistilkitError, first_words
from distilkit.options.values import did_you_mean

LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
GATED, MISSING, REVISION = "GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError"  # of huggingface_hub
NOT_FOUND = (MISSING, "DatasetNotFoundError", "HFValidationError")
UNREACHABLE = ("ConnectionError", "ConnectError", "LocalEntryNotFoundError", "Timeout", "TimeoutException", "HTTPError")


def split_revision(name: str) -> tuple[str, str | None]:
    """Return the id and the revision of a hub id such as bert-base-uncased@main; None for its newest state."""
    place, at, revision = name.rpartition("@")
    return (place, revision) if at and place and revision and not os.path.lexists(name) else (name, None)


@contextmanager
def hub_errors(name: str, *, what: str = "checkpoint", remedy: str = "give a local directory") -> Iterator[None]:
    """Context manager: turn errors about something on the hub into one line: gated, missing, offline or unreachable.

    `remedy` says what to do instead of using the hub.
    """
    try:
        yield
    except (DistilkitError, MemoryError):
        raise
    except Exception as error:
        raise DistilkitError(explain(error, name, what, remedy)) from error


def explain(error: BaseException, name: str, what: str, remedy: str) -> str:
    """Say in one line why something cannot be had from the hub, and what to do."""
    place, revision = split_revision(name)
    kinds = set(kinds_of(error))
    link = f"https://huggingface.co/{'datasets/' if what == 'data set' else ''}{place}"
    if GATED in kinds or "gated dataset" in str(error):  # datasets hides the cause
        return f"'{place}' is gated: ask for access at {link}, then {LOG_IN}"
    if REVISION in kinds:
        return f"'{place}' has no revision '{revision}': see {link}/branches"
    here = f"no local '{name}'{nearest(Path(name))}, and"
    if is_offline() or "OfflineModeIsEnabled" in kinds:
        return f"{here} it was not downloaded before HF_HUB_OFFLINE was set: unset that, or {remedy}"
    if kinds & set(NOT_FOUND):
        return f"{here} no such {what} on the hub, or it is private: check the name; for a private one, {LOG_IN}"
    if kinds & set(UNREACHABLE):
        return f"{here} the hub cannot be reached ({first_words(error)}): check the connection, or {remedy}"
    return f"{here} no such {what} can be read from the hub ({first_words(error)}): {remedy}"


def kinds_of(error: BaseException | None) -> Iterator[str]:
    """Yield the names of the classes of an error and of what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield from (kind.__name__ for kind in type(error).__mro__)
        error = error.__cause__ or error.__context__


def is_offline() -> bool:
    """Return whether the user turned off access to the hub."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE)


def nearest(place: Path) -> str:
    """Suggest the most similar name in the same folder, "" if none is similar."""
    try:
        return did_you_mean(place.name, [path.name for path in place.parent.iterdir()], place.parent)
    except OSError:
        return ""
