"""The processes of a run: what each computes on, which of them writes, and when all of them stop."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from distilkit.errors import DistilkitError
from distilkit.files import claim
from distilkit.options.training import TrainOptions

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def open_accelerator(config: TrainOptions) -> Accelerator:
    """Make the Accelerator: device, processes and precision; on CPUs, freed memory is kept for the next step."""
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise DistilkitError("--precision fp16 needs a GPU: use bf16 or fp32")
    keep_freed_memory()
    # it would hold on to the precision, and to the sharding, of this process's last run
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
    return Accelerator(
        cpu=_only_cpus(),
        mixed_precision=config.precision if config.precision in DTYPES else "no",
        # some losses leave some parameters without a gradient, which several processes must know of
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _only_cpus() -> bool:
    """Say whether these are several processes without GPUs, which accelerate has to be told."""
    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def state() -> PartialState:
    """Return accelerate's view of this process among the others."""
    return PartialState(cpu=_only_cpus())


def device() -> torch.device:
    """Return what this process computes on."""
    return cast(torch.device, state().device)


def is_main_process() -> bool:
    """Say whether this is the process that writes files."""
    return bool(state().is_main_process)


@contextmanager
def claimed(output: Path, *, resume: bool = False, keep: str | None = None) -> Iterator[Path]:
    """Claim an output directory (record.claim) once for all processes."""
    with claim(output, resume=resume, keep=keep) if is_main_process() else nullcontext(output) as out:
        state().wait_for_everyone()
        yield out


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory of this process that is thrown away afterwards."""
    with TemporaryDirectory(prefix="distilkit-") as directory:
        yield Path(directory)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Let glibc hold on to large blocks of memory that are freed; returns whether it does.

    By default it hands a block over 32 MB back at once and gets it anew, page by page and zeroed, when the next tensor
    of that size is made, which costs a training step on a CPU much of its time. Only on Linux with glibc,
    and not where the environment already sets MALLOC_… variables.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28}
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in wanted.items())
