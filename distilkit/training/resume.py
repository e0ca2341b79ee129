"""The state of a run between two updates, on disk: what --resume goes on from."""

import json
import logging
import shutil
import zlib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR

from distilkit.errors import DistilkitError
from distilkit.files import sync, write_text
from distilkit.options.spec import flag
from distilkit.options.training import TrainOptions
from distilkit.progress import warn
from distilkit.record import config_json

KEPT = 2
MANIFEST = "manifest.json"  # a CRC-32 of each file: a checkpoint whose files don't match is passed over
CHANGEABLE = {"resume", "log_every", "log_with", "checkpoint_every", "output", "plan"}
DATA_KEY = "rows"  # in run.json: what tells the text or rows from others
LEARNING_RATES = {"lr", "head_lr"}  # may differ with --resume: a run whose loss was not finite needs a lower one

logging.getLogger("accelerate").setLevel(logging.ERROR)  # it warns of tied weights, which load again as they were


def run_checkpoints(out: Path) -> list[Path]:
    """List the finished checkpoints of a run, oldest first."""
    return sorted(path for path in out.glob("checkpoint-*") if path.suffix != ".partial")


def save_run_checkpoint(accelerator: Accelerator, out: Path, step: int) -> None:
    """Write the state after an update under a temporary name, rename it, and drop all but the last two."""
    final, beside = out / f"checkpoint-{step:08d}", (out / "train.jsonl", out / "run.json")
    partial = final.with_suffix(".partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(partial))
    except (RuntimeError, SafetensorError) as error:  # what torch and safetensors make of a full disk
        shutil.rmtree(partial, ignore_errors=True)
        reason = str(error).splitlines()[0]
        raise DistilkitError(
            f"cannot write '{final}' ({reason}): free space and run it again, with --resume where an older one is"
        ) from None
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_text(partial / MANIFEST, json.dumps(checksums(partial)))
        for path in (*partial.rglob("*"), partial, *(path for path in beside if path.exists())):
            sync(path)
        partial.replace(final)
        sync(out)
        for old in run_checkpoints(out)[:-KEPT]:
            shutil.rmtree(old)


def checksums(directory: Path) -> dict[str, int]:
    """Return the CRC-32 of each file of a checkpoint, by name."""
    found = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST):
        value = 0
        with path.open("rb") as file:
            while block := file.read(2**24):
                value = zlib.crc32(block, value)
        found[str(path.relative_to(directory))] = value
    return found


def is_whole(directory: Path) -> bool:
    """Say whether a checkpoint holds what was written into it."""
    try:
        return bool(json.loads((directory / MANIFEST).read_text("utf-8")) == checksums(directory))
    except (OSError, ValueError):  # ValueError: text that is no JSON, or no text
        return False


def remove_run_checkpoints(out: Path) -> None:
    """Delete a finished run's checkpoints."""
    for path in (*out.glob("checkpoint-*"), out / "run.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def delete_after(out: Path, step: int) -> None:
    """Delete the checkpoints of later updates, so that --resume goes on from one that is good."""
    for path in run_checkpoints(out):
        if step_of(path) > step:
            shutil.rmtree(path)


def step_of(path: Path) -> int:
    """Return the number of a checkpoint's last update."""
    return int(path.name.removeprefix("checkpoint-"))


def restore(
    accelerator: Accelerator, scheduler: LambdaLR, out: Path, config: TrainOptions, updates: int, rows: str
) -> int:
    """Load the newest whole checkpoint where --resume asks for it; returns the number of its update, 0 at the start.

    A damaged one is passed over with a warning. Another learning rate than the interrupted run's holds from here on.
    Raises DistilkitError where an option that changes the result, or the text or rows (whose mark is `rows`), differ
    from the interrupted run's. An option that its distilkit did not have yet had what is the default now.
    """
    run = {name: value for name, value in config_json(config).items() if name not in CHANGEABLE}
    run |= {"num_processes": accelerator.num_processes, DATA_KEY: rows, "updates": updates}
    found = run_checkpoints(out) if config.resume else []
    while found and not is_whole(found[-1]):
        damaged = found.pop()
        warn(f"{damaged.name} is damaged: going on from {found[-1].name if found else 'the start'}")
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            shutil.rmtree(damaged)
    if not found:
        if accelerator.is_main_process:
            write_text(out / "run.json", json.dumps(run))
        return 0
    before = run | defaults(config) | read_run(out)
    for name, value in run.items():
        if before[name] != value and name in LEARNING_RATES:
            warn(f"{flag(name)} was {before[name]} in the interrupted run, now {value}: going on with that")
        elif before[name] != value and name == DATA_KEY:
            raise DistilkitError("the text or rows are others than the interrupted run's: --resume needs the same")
        elif before[name] != value:
            raise DistilkitError(
                f"{flag(name)} was {before[name]} in the interrupted run, now {value}: --resume needs the same"
            )
    rates = [float(rate) for rate in scheduler.base_lrs]
    accelerator.load_state(str(found[-1]))
    set_rates(scheduler, rates)
    return step_of(found[-1])


def defaults(config: TrainOptions) -> dict[str, Any]:
    """Return what each option is where it is not given."""
    return {item.name: item.default for item in fields(config) if item.default is not MISSING}


def read_run(out: Path) -> dict[str, Any]:
    """Return the options of an interrupted run."""
    try:
        return dict(json.loads((out / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise DistilkitError(f"'{out / 'run.json'}' cannot be read: start again in another -o") from None


def set_rates(scheduler: LambdaLR, rates: list[float]) -> None:
    """Give the optimizer these peak rates, each at the height that the schedule has reached."""
    now = [rate * height(scheduler.last_epoch) for rate, height in zip(rates, scheduler.lr_lambdas, strict=True)]
    for group, peak, rate in zip(scheduler.optimizer.param_groups, rates, now, strict=True):
        group["initial_lr"], group["lr"] = peak, rate
    scheduler.load_state_dict(scheduler.state_dict() | {"base_lrs": rates, "_last_lr": now})
