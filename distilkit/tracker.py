"""--log-with: the lines of train.jsonl, handed to TensorBoard, Weights & Biases or Trackio by accelerate."""

from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import filter_trackers, get_available_trackers

from distilkit.errors import DistilkitError
from distilkit.options.training import TrainOptions
from distilkit.record import config_json

PROJECT = "distilkit"


def check_tracker(name: str | None) -> None:
    """Refuse a tracker whose package isn't there."""
    if name and name not in [str(tracker) for tracker in get_available_trackers()]:
        raise DistilkitError(f"--log-with {name} needs a package that is missing: pip install {name}")


def open_tracker(accelerator: Accelerator, config: TrainOptions, out: Path, done: int) -> None:
    """Start what --log-with names, so that accelerator.log reaches it; nothing where it isn't given."""
    check_tracker(config.log_with)
    if config.log_with is None:
        return
    accelerator.project_configuration.logging_dir = str(out / "tensorboard")  # the others have places of their own
    accelerator.log_with = filter_trackers([config.log_with], accelerator.logging_dir)
    # a run that goes on takes the place of what the interrupted one logged after its last checkpoint
    settings = {"tensorboard": {"purge_step": done + 1}, "wandb": {"name": out.name}, "trackio": {"name": out.name}}
    options = {name: value for name, value in config_json(config).items() if isinstance(value, (str, int, float))}
    accelerator.init_trackers(PROJECT, config=options, init_kwargs=settings)


def close_tracker(accelerator: Accelerator) -> None:
    """Let the trackers write what they still hold."""
    for tracker in accelerator.trackers:  # not end_training(), which would end the group of processes too
        tracker.finish()
    accelerator.trackers = []
