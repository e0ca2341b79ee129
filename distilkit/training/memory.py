"""Memory used and available, and out-of-memory errors that name the options to change."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from distilkit.errors import DistilkitError, is_out_of_memory
from distilkit.options.training import TrainOptions
from distilkit.training.resume import run_checkpoints

CGROUP = Path("/sys/fs/cgroup/memory.max")  # a container's limit in bytes, or "max"


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes, of a GPU or, for CPUs, of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def total_memory(device: torch.device, limit_file: Path = CGROUP) -> int:
    """Return the memory in bytes of a GPU or, for CPUs, of the machine or its container (`limit_file`)."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    physical = int(psutil.virtual_memory().total)
    limit = limit_file.read_text(encoding="ascii").strip() if limit_file.is_file() else ""
    return min(physical, int(limit)) if limit.isdigit() else physical


@contextmanager
def explain_out_of_memory(suggestions: Sequence[str], out: Path) -> Iterator[None]:
    """Turn an out-of-memory error into one line with `suggestions` and the checkpoint in `out` to resume from."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        found = run_checkpoints(out)
        resume = f"; with more free memory, continue from {found[-1].name} with --resume" if found else ""
        raise DistilkitError(f"out of memory: {', or '.join(suggestions)}{resume}") from None


def memory_suggestions(options: TrainOptions, *more: str) -> list[str]:
    """List options that reduce memory: those of every training run, then a command's own ones (`more`)."""
    found = []
    if options.batch_size > 1:
        found.append(f"lower --batch-size (now {options.batch_size}) and raise --accumulate to match")
    if options.precision == "fp32" and torch.cuda.is_available():
        found.append("use --precision bf16")
    return [*found, *more]
