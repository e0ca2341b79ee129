"""Write files atomically, claim an output directory and clean up after a failure."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from distilkit.errors import DistilkitError

BIOGRAPHY = "distilkit.json"
PARTIAL = ".partial"  # how the names of unfinished files and directories end
UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG,
}  # fmt: skip
NESTED = ("*/run.json", "*/*/run.json", f"*/{BIOGRAPHY}", f"*/*/{BIOGRAPHY}")  # of several seeds, or tasks


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file of an unguessable name beside `path`; then put it there in one step.

    Nothing else is written to: a link that somebody has planted is replaced, not followed. Readers see the old file or
    the whole new one. If the block fails, the new file is removed.
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


def readable_by_umask(path: Path) -> None:
    """Give a file the mode that the umask gives to new files."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, as UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def is_writable(folder: Path) -> bool:
    """Say whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def is_claimable(output: Path) -> bool:
    """Say whether an output directory is absent or empty."""
    return not output.exists() or (output.is_dir() and not any(output.iterdir()))


@contextlib.contextmanager
def claim(output: Path, *, resume: bool = False, keep: str | None = None) -> Iterator[Path]:
    """Make the output directory, refuse one in use, and leave nothing behind where the command fails.

    `keep` names a pattern of files worth keeping (a training run's checkpoints): where one is there, a failed
    directory stays, so that --resume can go on from it.
    Raises DistilkitError where the directory isn't empty, is a file, or can't be written.
    """
    if resume:
        if (output / BIOGRAPHY).exists():
            raise DistilkitError(f"'{output}' is already finished: nothing to resume, choose another -o")
        signs = NESTED if keep and "/" in keep else ("run.json",)
        if not is_claimable(output) and not any(found for sign in signs for found in output.glob(sign)):
            raise DistilkitError(f"'{output}' holds something else than a run to go on with: choose another -o")
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
            place = error.filename or output  # may be a cache's
            raise DistilkitError(
                f"cannot write '{place}' ({error.strerror or error}): free space or choose another -o"
            ) from None
        raise


def make_directory(path: Path) -> None:
    """Make a directory and those above it. Raises DistilkitError where there can't be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as below /proc
        raise DistilkitError(f"cannot write '{path}' ({error.strerror}): choose another -o") from None


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
