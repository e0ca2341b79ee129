"""Checkpoints of a run, and --resume."""

import errno
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.other import load
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR

from distilkit.errors import DistilkitError, UnwritableError
from distilkit.files import PARTIAL, note_made, read_json, remove, sync, write_text
from distilkit.options.spec import flag
from distilkit.options.training import TrainOptions
from distilkit.progress import say, warn
from distilkit.record import config_json

CHECKPOINT = re.compile(r"checkpoint-(\d{8,13})")  # the name of one, with the number of its last update
KEEP_NEWEST = 2  # checkpoints; the older one serves if the newest is damaged
STATE_FILE = "state-{}.pt"  # tensors and plain values only
CHECKSUMS = "manifest.json"  # file in a checkpoint: the CRC-32 of each other file
CHANGEABLE = {
    "resume",
    "log_every",
    "log_with",
    "checkpoint_every",
    "output",
    "plan",
    "require",
}  # free to differ with --resume
LEARNING_RATES = {"lr", "head_lr"}  # free to differ with a warning: a run that diverged needs a lower rate
DATA_KEY = "rows"  # key in run.json for the fingerprint of the training data

logging.getLogger("accelerate").setLevel(logging.ERROR)  # it warns about tied weights, which are restored correctly


def run_checkpoints(out: Path) -> list[Path]:
    """List the finished checkpoints of a run, oldest first."""
    found = (path for path in out.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name) and not path.is_symlink())
    return sorted(path for path in found if path.is_dir())


def save_run_checkpoint(accelerator: Accelerator, stateful: Sequence[Any], out: Path, step: int) -> None:
    """Write a checkpoint after update `step` under a temporary name, rename it, and delete all but the newest two.

    `stateful` are the objects beside model and optimizer whose state_dict() belongs to the run.
    Raises DistilkitError if it cannot be written, for example for lack of space.
    """
    final, run_files = out / f"checkpoint-{step:08d}", (out / "train.jsonl", out / "run.json")
    partial = final.with_suffix(PARTIAL)
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        note_made(partial, whole=True)
        note_made(final, whole=True)
    accelerator.wait_for_everyone()
    try:
        if not out.is_dir():  # accelerate would make it again, without the files of the run
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        accelerator.save_state(str(partial))
        for number, item in enumerate(stateful if accelerator.is_main_process else ()):
            torch.save(item.state_dict(), partial / STATE_FILE.format(number))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_text(partial / CHECKSUMS, json.dumps(checksums(partial)))
            for path in (*partial.rglob("*"), partial, *(path for path in run_files if path.exists())):
                sync(path)
            partial.replace(final)
            sync(out)
    # torch and safetensors have errors of their own for a full disk
    except (OSError, RuntimeError, SafetensorError, UnwritableError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        resume = " with --resume" if run_checkpoints(out) else ""
        raise UnwritableError(
            f"cannot write '{final}' ({reason}): free some space and run the command again{resume}"
        ) from None
    if accelerator.is_main_process:
        for old in run_checkpoints(out)[:-KEEP_NEWEST]:
            shutil.rmtree(old, ignore_errors=True)


def checksums(directory: Path) -> dict[str, int]:
    """Return the CRC-32 of each file of a checkpoint, by name."""
    found = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.name != CHECKSUMS):
        value = 0
        with path.open("rb") as file:
            while block := file.read(2**24):
                value = zlib.crc32(block, value)
        found[str(path.relative_to(directory))] = value
    return found


def is_intact(directory: Path) -> bool:
    """Return whether the files of a checkpoint match their checksums."""
    try:
        return bool(read_json(directory / CHECKSUMS) == checksums(directory))
    except (OSError, ValueError):
        return False


def remove_run_checkpoints(out: Path) -> None:
    """Delete a finished run's checkpoints."""
    for path in (*run_checkpoints(out), *out.glob(f"checkpoint-*{PARTIAL}"), out / "run.json"):
        remove(path, whole=True)


def delete_after(out: Path, step: int) -> None:
    """Delete the checkpoints after update `step`."""
    for path in run_checkpoints(out):
        if step_of(path) > step:
            remove(path, whole=True)


def step_of(path: Path) -> int:
    """Return the number of the last update in a checkpoint."""
    return int(path.name.removeprefix("checkpoint-"))


def restore(
    accelerator: Accelerator,
    scheduler: LambdaLR,
    stateful: Sequence[Any],
    out: Path,
    options: TrainOptions,
    updates: int,
    fingerprint: str,
) -> int:
    """With --resume, load the newest intact checkpoint; return the number of its last update, 0 for a new run.

    Damaged checkpoints are deleted with a warning. A learning rate that differs from the interrupted run's applies from
    here on. Options that are missing in run.json, written by an older version, count as having today's default.
    Raises DistilkitError if an option that changes the result, or the fingerprint of the data, differs from the
    interrupted run's.
    """
    run = {name: value for name, value in config_json(options).items() if name not in CHANGEABLE}
    run |= {"num_processes": accelerator.num_processes, DATA_KEY: fingerprint, "updates": updates}
    found = run_checkpoints(out) if options.resume else []
    while found and not is_intact(found[-1]):
        damaged = found.pop()
        warn(f"{damaged.name} is damaged: continuing from {found[-1].name if found else 'the start'}")
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            remove(damaged, whole=True)
    if not found:
        if options.resume:
            say("no checkpoint to continue from: starting with the first update")
        if accelerator.is_main_process:
            write_text(out / "run.json", json.dumps(run))
        return 0
    before = run | defaults(options) | read_run(out)
    for name, value in run.items():
        if before[name] != value and name in LEARNING_RATES:
            warn(f"{flag(name)} was {before[name]} in the interrupted run: continuing with {value}")
        elif before[name] != value and name == DATA_KEY:
            raise DistilkitError(
                "the training data differs from the interrupted run's: --resume requires the same data"
            )
        elif before[name] != value:
            raise DistilkitError(
                f"{flag(name)} was {before[name]} in the interrupted run, now {value}: --resume requires the same value"
            )
    rates = [float(rate) for rate in scheduler.base_lrs]
    load_states(accelerator, stateful, found[-1])
    set_rates(scheduler, rates)
    say(f"continuing after update {step_of(found[-1]):,} of {updates:,}, from {found[-1].name}")
    return step_of(found[-1])


def load_states(accelerator: Accelerator, stateful: Sequence[Any], checkpoint: Path) -> None:
    """Load a checkpoint without running any code that its files may contain.

    accelerate unpickles the states of registered objects, so none is registered. It ignores random states that it
    cannot read, so they are read here first.
    Raises DistilkitError if a file cannot be read that way.
    """
    try:
        load(checkpoint / f"random_states_{accelerator.process_index}.pkl")  # with weights_only, like the others
        states = [load(checkpoint / STATE_FILE.format(number)) for number in range(len(stateful))]
        accelerator.load_state(str(checkpoint))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever the damage leads to
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DistilkitError(
            f"'{checkpoint}' cannot be read safely ({reason}): delete it; --resume then continues from an older one"
        ) from None
    for item, state in zip(stateful, states, strict=True):
        item.load_state_dict(state)


def defaults(options: TrainOptions) -> dict[str, Any]:
    """Return the default of each option that has one."""
    return {item.name: item.default for item in fields(options) if item.default is not MISSING}


def read_run(out: Path) -> dict[str, Any]:
    """Return the options of an interrupted run.

    Raises DistilkitError if its run.json is unreadable.
    """
    try:
        found = read_json(out / "run.json")
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DistilkitError(f"'{out / 'run.json'}' cannot be read: start again in another -o")
    return found


def set_rates(scheduler: LambdaLR, rates: list[float]) -> None:
    """Set the peak learning rates of the optimizer's groups; the schedule continues from its current step."""
    now = [rate * factor(scheduler.last_epoch) for rate, factor in zip(rates, scheduler.lr_lambdas, strict=True)]
    for group, peak, rate in zip(scheduler.optimizer.param_groups, rates, now, strict=True):
        group["initial_lr"], group["lr"] = peak, rate
    scheduler.load_state_dict(scheduler.state_dict() | {"base_lrs": rates, "_last_lr": now})
