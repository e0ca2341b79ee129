"""Lock files: one process at a time writes to a place."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from distilkit.errors import DistilkitError


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
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def take_lock(lock: Path, busy: str, *, wait: bool = False) -> int:
    """Make and lock a lock file, as locked() does; return its descriptor, which holds the lock until it is closed."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            raise DistilkitError(busy) from None
        if os.path.lexists(lock) and os.path.samestat(os.fstat(descriptor), lock.lstat()):
            return descriptor
        os.close(descriptor)  # the holder before has removed the file that was opened here
