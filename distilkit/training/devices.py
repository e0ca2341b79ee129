"""Devices and processes of a run: open the accelerator, find the main process, tune the CPU allocator."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from distilkit.claims import claim
from distilkit.errors import DistilkitError
from distilkit.options.training import TrainOptions

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # by --precision
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # from glibc's malloc.h


def open_accelerator(options: TrainOptions) -> Accelerator:
    """Make the Accelerator, with the device, processes and precision of a run; tune the CPU allocator.

    Raises DistilkitError for --precision fp16 without a GPU.
    """
    check_precision(options.precision)
    keep_freed_memory()
    # Otherwise accelerate reuses the precision and sharding of the last run in this process.
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
    return Accelerator(
        cpu=_has_only_cpus(),
        mixed_precision=options.precision if autocast_dtype(options.precision) else "no",
        # Some losses give no gradient to some parameters.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def check_precision(precision: str) -> None:
    """Raise DistilkitError for a precision that this machine does not train in."""
    if precision == "fp16" and not torch.cuda.is_available():
        raise DistilkitError("--precision fp16 requires a GPU: use bf16 or fp32")


def autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the dtype of autocast for a --precision; None for fp32, which runs without autocast."""
    return None if precision == "fp32" else DTYPES[precision]


def _has_only_cpus() -> bool:
    """Return whether several processes run without GPUs; accelerate does not detect this by itself."""
    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def state() -> PartialState:
    """Return accelerate's state of this process: its rank, the number of processes, its device."""
    return PartialState(cpu=_has_only_cpus())


def device() -> torch.device:
    """Return the device of this process."""
    return cast(torch.device, state().device)


def is_main_process() -> bool:
    """Return whether this is the process that writes files."""
    return bool(state().is_main_process)


@contextmanager
def claim_once(output: Path, *, resume: bool = False, keep: str | None = None) -> Iterator[Path]:
    """Claim an output directory (claims.claim) in the main process; the others wait for it."""
    with claim(output, resume=resume, keep=keep) if is_main_process() else nullcontext(output) as out:
        state().wait_for_everyone()
        yield out


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a directory of this process that is deleted afterwards."""
    with TemporaryDirectory(prefix="distilkit-") as directory:
        yield Path(directory)


def keep_freed_memory() -> bool:
    """Make glibc reuse large freed blocks instead of returning them to the system; return whether it does.

    By default, glibc returns every freed block above 32 MB to the system at once. The next tensor of that size then
    needs new, zeroed pages, which takes much of the time of a training step on a CPU. This applies on Linux with glibc
    only, and not if the environment sets MALLOC_… variables.
    """
    mallopt = allocator("mallopt")
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28}
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in settings.items())


def return_freed_memory() -> None:
    """Return glibc's free pages to the system, where keep_freed_memory() applies.

    Kept memory (keep_freed_memory) gets fragmented, because evaluations and batches of other lengths take blocks of
    other sizes. Returned every few updates, it stays at what training needs.
    """
    if malloc_trim := allocator("malloc_trim"):
        malloc_trim(0)


def allocator(name: str) -> Any:
    """Return a function of glibc's allocator; None without glibc, or if the environment sets MALLOC_… variables."""
    if sys.platform != "linux" or any(variable.startswith("MALLOC_") for variable in os.environ):
        return None
    return getattr(ctypes.CDLL(None), name, None)  # missing in musl
