"""The state of a run between two updates, on disk: what --resume goes on from."""

import json
import logging
import shutil
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from distilkit.config import TrainConfig
from distilkit.errors import DistilkitError
from distilkit.options import flag
from distilkit.record import config_json, write_text

KEPT = 2
MAY_CHANGE = {"resume", "log_every", "checkpoint_every", "output"}

logging.getLogger("accelerate").setLevel(logging.ERROR)  # it warns of tied weights, which load again as they were


def snapshots(out: Path) -> list[Path]:
    """List the finished checkpoints of a run, oldest first."""
    return sorted(path for path in out.glob("checkpoint-*") if path.suffix != ".partial")


def save_snapshot(accelerator: Accelerator, out: Path, step: int) -> None:
    """Write the state after an update under a temporary name, rename it, and drop all but the last two."""
    final = out / f"checkpoint-{step:08d}"
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
        partial.replace(final)
        for old in snapshots(out)[:-KEPT]:
            shutil.rmtree(old)


def remove_snapshots(out: Path) -> None:
    """Delete a finished run's checkpoints."""
    for path in (*out.glob("checkpoint-*"), out / "run.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def restore(accelerator: Accelerator, out: Path, config: TrainConfig, updates: int) -> int:
    """Load the newest checkpoint where --resume asks for it; returns the number of its update, 0 at the start.

    Raises DistilkitError where an option that changes the result differs from the interrupted run's.
    """
    run = {name: value for name, value in config_json(config).items() if name not in MAY_CHANGE} | {"updates": updates}
    found = snapshots(out) if config.resume else []
    if not found:
        if accelerator.is_main_process:
            write_text(out / "run.json", json.dumps(run))
        return 0
    before = json.loads((out / "run.json").read_text(encoding="utf-8"))
    for name, value in run.items():
        if before.get(name) != value:
            raise DistilkitError(
                f"{flag(name)} was {before.get(name)} in the interrupted run, now {value}: --resume needs the same"
            )
    accelerator.load_state(str(found[-1]))
    return int(found[-1].name.removeprefix("checkpoint-"))
