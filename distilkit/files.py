"""Write files atomically, read JSON safely, claim an output directory and clean up after a failure."""

import contextlib
import errno
import os
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilkit.errors import DistilkitError, UnwritableError
from distilkit.locks import locked, take_lock

BIOGRAPHY = "distilkit.json"
LOCK = ".distilkit.lock"  # in an output directory, while a run writes to it; a killed run leaves it behind
EXPORT_MANIFEST = "export.json"  # which transformers writes beside an exported model
PARTIAL = ".partial"  # how the names of unfinished files and directories end
MAX_JSON_BYTES = 2**26  # of a record or a manifest, which have a few thousand
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NESTED = ("*/run.json", "*/*/run.json", f"*/{BIOGRAPHY}", f"*/*/{BIOGRAPHY}")  # of several seeds, or tasks

_made: dict[Path, bool] = {}  # what runs of this process made in their outputs, in order; whether it is a whole tree


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


def is_claimable(output: Path) -> bool:
    """Say whether an output directory is absent or empty, apart from the lock of a killed run."""
    try:
        return not output.exists() or (output.is_dir() and all(path.name == LOCK for path in output.iterdir()))
    except OSError as error:
        raise DistilkitError(f"cannot use '{output}' ({error.strerror}): choose another -o") from None


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


def remove_made(output: Path, folders: Sequence[Path]) -> None:
    """Remove what this process made in a directory, newest first, and then `folders` that are empty.

    What others put there stays. A link is removed, not followed. What cannot be removed stays too.
    """
    for path in [path for path in reversed(_made) if output.absolute() in path.parents]:
        remove(path, whole=_made.pop(path))
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


@contextlib.contextmanager
def claim_files(files: Mapping[Path, str]) -> Iterator[None]:
    """Context manager: lock the names of files that are written in it, {path: option}; remove them if it fails.

    Their folder is created if needed.
    Raises DistilkitError if a file exists, if another run writes it, or if its folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for path, option in files.items():
            lock = path.parent / f".distilkit-{zlib.crc32(os.fsencode(path.name)):08x}.lock"
            with writing(f"{option} '{path.parent}'"):
                for folder in reversed(make_directory(path.parent)):  # the stack removes the last one first
                    stack.push(lambda error, *_, folder=folder: remove(folder, whole=False) if error else None)
                stack.enter_context(locked(lock, f"another run is writing {option} '{path}': choose another name"))
            if os.path.lexists(path):
                raise DistilkitError(f"{option} '{path}' already exists: choose another name")
        try:
            yield
        except BaseException:
            for path in files:
                if path.absolute() in _made:
                    remove(path, whole=_made.pop(path.absolute()))
            raise


@contextlib.contextmanager
def claim(output: Path, *, resume: bool = False, keep: str | None = None, replace: bool = False) -> Iterator[Path]:
    """Create the output directory and lock it, refuse one that is in use, and clean up if the command fails.

    `keep` is a pattern of files worth keeping (a run's checkpoints): if one exists, a failed directory stays, so that
    --resume can continue. With `replace`, files of a finished output are written over.
    Raises DistilkitError if another run writes to the directory, or if it is not empty, is a file, or cannot be
    written.
    """
    lock = output / LOCK
    unfinished = os.path.lexists(lock)  # what a killed run left behind, or the lock of one that still runs
    if not unfinished:
        refuse_used(output, resume=resume, keep=keep, replace=replace)  # before anything is written to it
    for path in [path for path in _made if output.absolute() in path.parents]:
        del _made[path]  # of an earlier run of this process
    with writing(f"output directory '{output}'"):
        folders = make_directory(output)
        for folder in reversed(folders):
            note_made(folder)  # for a claim around this one
        try:
            descriptor = take_lock(lock, f"another run is writing to '{output}': wait for it, or choose another -o")
        except OSError:
            remove_made(output, folders)
            raise
    new, lock_stays = False, unfinished
    try:
        refuse_used(output, resume=resume, keep=keep, replace=replace, unfinished=unfinished)
        new, lock_stays = is_claimable(output), True
        for leftover in output.glob(f".*{PARTIAL}"):
            remove(leftover, whole=True)
        yield output
        lock_stays = False
    except BaseException:
        if new and not (keep and any(output.glob(keep))):
            lock_stays = False
            remove(lock, whole=False)
            remove_made(output, folders)
        raise
    finally:
        if not lock_stays:
            remove(lock, whole=False)
        os.close(descriptor)


def refuse_used(
    output: Path, *, resume: bool, keep: str | None, replace: bool = False, unfinished: bool = False
) -> None:
    """Raise DistilkitError if a run cannot start in a directory, or with `resume` continue there."""
    signs = NESTED if keep and "/" in keep else ("run.json",)
    unfinished = unfinished or any(found for sign in signs for found in output.glob(sign))
    if resume and (output / BIOGRAPHY).exists():
        raise DistilkitError(f"'{output}' is already finished: there is nothing to resume, choose another -o")
    if is_claimable(output) or (resume and unfinished) or replace:
        return
    if resume:
        raise DistilkitError(f"'{output}' does not contain an interrupted run: choose another -o")
    if not output.is_dir():
        raise DistilkitError(f"output directory '{output}' is a file: choose another -o")
    if keep and unfinished and not (output / BIOGRAPHY).exists():
        raise DistilkitError(
            f"output directory '{output}' contains an interrupted run: continue it with --resume, or choose another -o"
        )
    raise DistilkitError(f"output directory '{output}' is not empty: choose another -o, or empty it")
