"""The errors that a user can cause."""

import errno
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

OUT_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory", "bad_alloc")


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


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch raises a plain RuntimeError on CPUs
    return isinstance(error, MemoryError) or any(message in str(error).lower() for message in OUT_OF_MEMORY)


@contextmanager
def system_errors(*lowered: str) -> Iterator[None]:
    """Context manager: turn system errors that nothing has explained, and a lack of memory, into one line.

    `lowered` are the options to lower if memory is lacking.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            options = f"lower {' or '.join(lowered)}, " if lowered else ""
            remedy = f"{options}use a smaller model, or close other programs"
            raise DistilkitError(f"out of memory: {remedy}") from error
        if not isinstance(error, OSError):
            raise
        place = f"'{error.filename}'" if error.filename else "a file"
        raise DistilkitError(
            f"cannot use {place} ({error.strerror or error}): check that it exists and that you may use it"
        ) from error


@contextmanager
def model_errors() -> Iterator[None]:
    """Context manager: turn what a model of transformers raises while it runs into one line.

    Some settings of a config.json are first used there, and what they raise is not documented.
    """
    try:
        yield
    except DistilkitError:
        raise
    except Exception as error:
        if not any(map(_is_model_code, traceback.walk_tb(error.__traceback__))):
            raise
        raise DistilkitError(f"the model cannot be run ({first_words(error)}): correct its config.json") from error


def _is_model_code(step: tuple[FrameType, int]) -> bool:
    frame = step[0]
    return frame.f_code.co_name == "forward" and frame.f_globals.get("__name__", "").startswith("transformers.models.")
