"""The processes of a run: what each computes on, which of them writes, and when all of them stop."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from distilkit.allocator import keep_freed_memory
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


def agreed(accelerator: Accelerator, stop: bool, *, asked: bool) -> bool:
    """Say whether to stop: several processes do where any of them was told to, and ask each other only now and then."""
    if accelerator.num_processes == 1:
        return stop
    return asked and bool(accelerator.reduce(torch.tensor(float(stop), device=accelerator.device), "sum") > 0)


_open: list[list[int]] = []  # the signals that the stop_signal() of this process has received, where there is one


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM has come; a second SIGINT interrupts at once.

    Within another one it listens to the same: what comes at the end of one run is then heard by the next.
    """
    if _open:
        outer = _open[0]
        yield lambda: bool(outer)
        return
    received: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
        _open.append(received)
    except ValueError:  # not the main thread: signals stay with whoever has them
        pass
    try:
        yield lambda: bool(received)
    finally:
        if before:
            _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
