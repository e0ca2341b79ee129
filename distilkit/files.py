"""Write files atomically, read JSON safely, and know what a run has made."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distilkit.errors import UnwritableError

BIOGRAPHY = "distilkit.json"
EXPORT_MANIFEST = "export.json"  # which transformers writes beside an exported model
PARTIAL = ".partial"  # how the names of unfinished files and directories end
MAX_JSON_BYTES = 2**26  # limit for a record or a manifest; they usually have a few thousand bytes
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_made: dict[Path, bool] = {}  # paths that this process made, in order: True for a directory with all its contents


@contextlib.contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """Context manager around code that only writes: turn what the system refuses into an UnwritableError.

    `place` is a path, or words that name the place.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:120]  # NumPy gives no errno
        remedy = (
            "free some space or write elsewhere" if error.errno in (None, *NO_SPACE) else "check it or write elsewhere"
        )
        shown = f"'{place}'" if isinstance(place, Path) else place
        raise UnwritableError(f"cannot write {shown} ({reason}): {remedy}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file with an unguessable name beside `path`; then put it at `path` in one step.

    If `path` is a link, the link is replaced, not followed. Readers see the old file or the complete new one. If the
    block fails, the new file is removed.
    """
    import tempfile  # only writers need it, and every --help would pay for it

    descriptor, name = tempfile.mkstemp(prefix=".", suffix=PARTIAL, dir=path.parent)  # with O_EXCL and O_NOFOLLOW
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        readable_by_umask(partial)  # mkstemp's own mode lets nobody else read
        sync(partial)
        partial.replace(path)
        note_made(path)
    finally:
        remove(partial, whole=False)


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Yield a new directory inside `directory`, for a library to write files to; then move them up, on disk."""
    partial = directory / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    with writing(directory):
        for folder in reversed(make_directory(partial)):
            note_made(folder, whole=folder == partial)
        yield partial
        for path in sorted(partial.iterdir()):
            readable_by_umask(path)  # safetensors makes files that only their owner can read
            sync(path)
            path.replace(directory / path.name)
            note_made(directory / path.name)
        partial.rmdir()


def readable_by_umask(path: Path) -> None:
    """Give a file the mode that the umask gives to new files."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, as UTF-8. What UTF-8 cannot hold (half of a surrogate pair) is written as an escape.

    Raises UnwritableError if the system refuses it.
    """
    with writing(path), replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def append_text(path: Path, text: str) -> None:
    """Append to a file that write_text() made. Raises UnwritableError if the file is gone or the disk is full."""
    with writing(path), path.open("r+", encoding="utf-8") as file:
        file.seek(0, os.SEEK_END)
        file.write(text)


def read_json(path: Path) -> Any:
    """Read a JSON file that another program may have written.

    Raises FileNotFoundError if there is none, ValueError with the reason if it cannot be read.
    """
    import json  # every --help would pay for it

    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a fifo would block
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("not a regular file")
            if found.st_size > MAX_JSON_BYTES:
                raise ValueError(f"larger than {MAX_JSON_BYTES // 2**20} MiB")
            return json.loads(file.read().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(str(path)) from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_exported(name: str | Path) -> bool:
    """Say whether a directory holds an exported model."""
    return (Path(name) / EXPORT_MANIFEST).is_file()


def is_writable(folder: Path) -> bool:
    """Say whether files can be created in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def make_directory(path: Path) -> list[Path]:
    """Create a directory and its parents; return those that are new. Raises OSError if that is impossible."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return new


def sync(path: Path) -> None:
    """Wait until a file or directory is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def note_made(path: Path, *, whole: bool = False) -> None:
    """Note that this process made a file, or a directory (with all that is in it, if `whole`)."""
    _made[path.absolute()] = whole


def was_made(path: Path) -> bool:
    """Say whether this process made a file."""
    return path.absolute() in _made


def forget_made(output: Path) -> None:
    """Forget what this process made in a directory."""
    for path in [path for path in list(_made) if output.absolute() in path.parents]:
        _made.pop(path, None)


def remove_made(output: Path, folders: Sequence[Path]) -> None:
    """Remove what this process made in a directory, newest first, and then `folders` that are empty.

    What others put there stays. A link is removed, not followed. What cannot be removed stays too.
    """
    for path in [path for path in reversed(list(_made)) if output.absolute() in path.parents]:
        remove(path, whole=_made.pop(path, False))
    for folder in folders:
        remove(folder, whole=False)


def remove(path: Path, *, whole: bool) -> None:
    """Remove a file, a link, or an empty directory (with `whole`, a directory tree), as far as that is possible."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif whole:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rmdir()
