"""The errors that a user can cause."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class DistilkitError(Exception):
    """What is wrong and what to do about it, in one line, with flags named as typed."""


class OptionError(DistilkitError):
    """An option has a value that it does not take: wrong usage on the command line."""


class UnwritableError(DistilkitError):
    """A file or a stream cannot be written: the disk is full, the place is gone, or it may not be written."""


class DivergedError(DistilkitError):
    """The loss of a training run is not finite. Other runs of the same command continue."""


def first_words(error: BaseException) -> str:
    """Return the first line of an error's text, cut short; the error's type if it has no text."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = (text.splitlines() or [type(error).__name__])[0][:160]
    return "".join(letter if letter.isprintable() else "?" for letter in line).rstrip(".: ")


@contextmanager
def library_errors(problem: str, remedy: str) -> Iterator[None]:
    """Context manager: turn whatever a library raises on a damaged file into one line with the library's own words.

    Libraries do not document what they raise on bad files, and it changes between versions, so every error is caught,
    including a panic of a Rust library, which is not an Exception. Errors about memory pass through. --verbose shows
    the original error.
    """
    try:
        yield
    except (DistilkitError, MemoryError):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise DistilkitError(f"{problem} ({first_words(error)}): {remedy}") from error
        raise
