"""Write files atomically, claim an output directory and clean up after a failure."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from distilkit.errors import DistilkitError

BIOGRAPHY = "distilkit.json"
EXPORT_MANIFEST = "export.json"  # which transformers writes beside an exported model
PARTIAL = ".partial"  # how the names of unfinished files and directories end
UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG,
}  # fmt: skip
NESTED = ("*/run.json", "*/*/run.json", f"*/{BIOGRAPHY}", f"*/*/{BIOGRAPHY}")  # of several seeds, or tasks


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
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Yield a new directory inside `directory`, for a library to write files to; then move them up, on disk."""
    partial = directory / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in sorted(partial.iterdir()):
        readable_by_umask(path)  # safetensors makes files that only their owner can read
        sync(path)
        path.replace(directory / path.name)
    partial.rmdir()


def readable_by_umask(path: Path) -> None:
    """Give a file the mode that the umask gives to new files."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, as UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def is_exported(name: str | Path) -> bool:
    """Say whether a directory holds an exported model."""
    return (Path(name) / EXPORT_MANIFEST).is_file()


def is_writable(folder: Path) -> bool:
    """Say whether files can be created in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def is_claimable(output: Path) -> bool:
    """Say whether an output directory is absent or empty."""
    return not output.exists() or (output.is_dir() and not any(output.iterdir()))


@contextlib.contextmanager
def claim(output: Path, *, resume: bool = False, keep: str | None = None) -> Iterator[Path]:
    """Create the output directory, refuse one that is in use, and clean up if the command fails.

    `keep` is a pattern of files worth keeping (a run's checkpoints): if one exists, a failed directory stays, so that
    --resume can continue.
    Raises DistilkitError if the directory is not empty, is a file, or cannot be written.
    """
    if resume:
        if (output / BIOGRAPHY).exists():
            raise DistilkitError(f"'{output}' is already finished: there is nothing to resume, choose another -o")
        signs = NESTED if keep and "/" in keep else ("run.json",)
        if not is_claimable(output) and not any(found for sign in signs for found in output.glob(sign)):
            raise DistilkitError(f"'{output}' does not contain an interrupted run: choose another -o")
    elif not is_claimable(output):
        raise DistilkitError(f"output directory '{output}' is not empty: choose another -o, or empty it")
    existed = output.exists()
    try:
        make_directory(output)
        yield output
    except BaseException as error:
        if not resume and not (keep and any(output.glob(keep))):
            for leftover in output.iterdir() if output.is_dir() else ():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            if not existed and output.is_dir():
                output.rmdir()
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            place = error.filename or output  # may be in a cache
            raise DistilkitError(
                f"cannot write '{place}' ({error.strerror or error}): free space or choose another -o"
            ) from None
        raise


def make_directory(path: Path) -> None:
    """Create a directory and its parents. Raises DistilkitError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # for example below /proc
        raise DistilkitError(f"cannot write '{path}' ({error.strerror}): choose another -o") from None


def sync(path: Path) -> None:
    """Wait until a file or directory is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
