"""Memory: how much there is, how much a run has used, and which option to change where it runs out."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from distilkit.errors import DistilkitError
from distilkit.options.training import TrainOptions
from distilkit.training.resume import run_checkpoints

CGROUP = Path("/sys/fs/cgroup/memory.max")  # a container's limit; "max" where it has none
REFUSALS = ("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory", "bad_alloc")


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


def total_memory(device: torch.device) -> int:
    """Return the memory in bytes that the GPU has, or else the machine or the container."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP.read_text(encoding="ascii").strip() if CGROUP.is_file() else ""
    return min(physical, int(limit)) if limit.isdigit() else physical


@contextmanager
def explain_out_of_memory(config: TrainOptions, out: Path) -> Iterator[None]:
    """Turn running out of memory into one line that names the options to change."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        found = run_checkpoints(out)
        again = f"; with more of it free, --resume goes on from {found[-1].name}" if found else ""
        raise DistilkitError(f"out of memory: {', or '.join(suggestions(config))}{again}") from None


def is_out_of_memory(error: Exception) -> bool:
    """Say whether an error means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in REFUSALS)  # RuntimeError is all that torch's CPU side raises


def suggestions(config: TrainOptions) -> list[str]:
    """List what would take less memory, that with the least effect on the result first."""
    found = []
    if config.batch_size > 1:
        found.append(f"lower --batch-size (now {config.batch_size}) and raise --accumulate to match")
    if asks_everywhere(config):
        found.append("give --ce-positions masked")
    if config.precision == "fp32" and torch.cuda.is_available():
        found.append("give --precision bf16")
    length = "seq_length" if hasattr(config, "seq_length") else "max_length"
    now = getattr(config, length, None)
    return [*found, f"lower --{length.replace('_', '-')}" + (f" (now {now})" if now else "")]


def asks_everywhere(config: TrainOptions) -> bool:
    """Say whether soft targets are matched at every token, not only at masked ones."""
    weight = getattr(config, "alpha_ce", None)
    asked = bool(weight) if weight is not None else getattr(config, "objective", "") == "triple"
    return asked and getattr(config, "ce_positions", "") == "all"
