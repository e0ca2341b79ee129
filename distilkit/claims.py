"""Claim an output directory or file for one run, and clean up after a failure."""

import contextlib
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from distilkit.errors import DistilkitError
from distilkit.files import (
    BIOGRAPHY,
    PARTIAL,
    forget_made,
    make_directory,
    note_made,
    remove,
    remove_made,
    was_made,
    writing,
)

LOCK = ".distilkit.lock"  # in an output directory, while a run writes to it; a killed run leaves it behind
NESTED = ("*/run.json", "*/*/run.json", f"*/{BIOGRAPHY}", f"*/*/{BIOGRAPHY}")  # of several seeds, or tasks


def is_claimable(output: Path) -> bool:
    """Say whether an output directory is absent or empty, apart from the lock of a killed run."""
    try:
        return not output.exists() or (output.is_dir() and all(path.name == LOCK for path in output.iterdir()))
    except OSError as error:
        raise DistilkitError(f"cannot use '{output}' ({error.strerror}): choose another -o") from None


@contextlib.contextmanager
def locked(lock: Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Context manager: hold a lock file, which nobody else can hold then; remove it at the end.

    The system releases the lock of a process that dies, so a file that is left behind locks nobody out.
    Raises DistilkitError with the line `busy` if another process, or another thread, holds it; with `wait`, waits.
    Raises OSError if the file cannot be made.
    """
    descriptor = take_lock(lock, busy, wait=wait)
    try:
        yield
    finally:
        remove(lock, whole=False)
        os.close(descriptor)


def take_lock(lock: Path, busy: str, *, wait: bool = False) -> int:
    """Make and lock a lock file, as locked() does; return its descriptor, which holds the lock until it is closed."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            hold(descriptor, wait=wait)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            raise DistilkitError(busy) from None
        if os.path.lexists(lock) and os.path.samestat(os.fstat(descriptor), lock.lstat()):
            return descriptor
        os.close(descriptor)  # the previous holder has removed this file in the meantime: try again


def hold(descriptor: int, *, wait: bool) -> None:
    """Lock an open file for this process. Raises OSError if another process holds it and this one does not wait."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def refuse_file(path: Path, option: str) -> None:
    """Raise DistilkitError if a file to write exists."""
    if os.path.lexists(path):
        raise DistilkitError(f"{option} '{path}' already exists: choose another name")


@contextlib.contextmanager
def claim_files(files: Mapping[Path, str]) -> Iterator[None]:
    """Context manager: lock files that are written inside it, {path: option}; remove the files if the block fails.

    Their folders are created if needed.
    Raises DistilkitError if a file exists, if another run writes it, or if its folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for path, option in files.items():
            lock = path.parent / f".distilkit-{zlib.crc32(os.fsencode(path.name)):08x}.lock"
            with writing(f"{option} '{path.parent}'"):
                for folder in reversed(make_directory(path.parent)):  # the stack removes the last one first
                    stack.push(lambda error, *_, folder=folder: remove(folder, whole=False) if error else None)
                stack.enter_context(locked(lock, f"another run is writing {option} '{path}': choose another name"))
            refuse_file(path, option)
        try:
            yield
        except BaseException:
            for path in files:
                if was_made(path):
                    remove(path, whole=False)
            raise


@contextlib.contextmanager
def claim(output: Path, *, resume: bool = False, keep: str | None = None, replace: bool = False) -> Iterator[Path]:
    """Create the output directory and lock it, refuse one that is in use, and clean up if the command fails.

    `keep` is a pattern of files worth keeping (a run's checkpoints): if one exists, a failed directory stays, so that
    --resume can continue. With `replace`, the files of a finished output are written over.
    Raises DistilkitError if another run writes to the directory, or if it is not empty, is a file, or cannot be
    written.
    """
    lock = output / LOCK
    unfinished = os.path.lexists(lock)  # what a killed run left behind, or the lock of one that still runs
    if not unfinished:
        # before anything is written to somebody else's directory
        refuse_used(output, resume=resume, keep=keep, replace=replace)
    with writing(f"output directory '{output}'"):
        folders = make_directory(output)
        try:
            descriptor = take_lock(lock, f"another run is writing to '{output}': wait for it, or choose another -o")
        except OSError:
            for folder in folders:
                remove(folder, whole=False)
            raise
    new, lock_stays = False, unfinished
    try:
        refuse_used(output, resume=resume, keep=keep, replace=replace, unfinished=unfinished)
        forget_made(output)  # by an earlier run of this process
        for folder in reversed(folders):
            note_made(folder)  # for a claim around this one
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
        raise DistilkitError(f"'{output}' is already finished, so there is nothing to resume: choose another -o")
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
