"""train.jsonl: one line of losses per update, copied from the device every --log-every updates; trackers."""

import json
import math
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.tracking import filter_trackers, get_available_trackers
from torch import Tensor

from distilkit.class_scores import ClassScore
from distilkit.errors import DistilkitError, DivergedError
from distilkit.files import append_text, note_made, write_text
from distilkit.options.training import TrainOptions
from distilkit.progress import aside, warn
from distilkit.record import FAILURES, MetricName, config_json, is_number, json_text
from distilkit.training.memory import peak_memory
from distilkit.training.resume import delete_after, run_checkpoints
from distilkit.training.stopping import WINDOW_UPDATES, DivergenceDetector

NON_LOSS_KEYS = {"step", "lr", "tokens", "seconds", "tokens_per_second"}  # keys of train.jsonl that are not losses
PROJECT = "distilkit"  # in trackers
LOG = "train.jsonl"


class TrainingLog:
    """The lines of a run's train.jsonl, including those before an interruption.

    `done` is the number of updates before the checkpoint that the run resumes from, 0 for a new run.
    """

    def __init__(self, out: Path, accelerator: Accelerator, options: TrainOptions, done: int) -> None:
        self.path, self.accelerator, self.options = out / LOG, accelerator, options
        self.unwritten: list[tuple[int, float, list[dict[str, Tensor]]]] = []
        self.loss_text = self.heldout_text = ""  # for status_line
        self.divergence = DivergenceDetector()
        self.last: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0}
        self.last_heldout: dict[str, Any] = {}
        lines = [line for line in read_log(out) if line["step"] <= done] if done else []
        if accelerator.is_main_process:
            write_text(self.path, "".join(map(_line_text, lines)))
        for line in lines:
            if "loss" in line:
                self.last = {"seconds": self.last["seconds"], **line}
                self.divergence.add(line["loss"])
            else:
                self.last_heldout = line
        open_tracker(accelerator, options, out, done)
        self.clock = time.monotonic() - self.last["seconds"]

    def update(self, step: int, lr: float, losses: list[dict[str, Tensor]]) -> None:
        """Hold the losses of an update, one dict per micro-batch, on the device until flush()."""
        self.unwritten.append((step, lr, losses))

    def flush(self, out: Path) -> None:
        """Write a line for each held update; the time since the last flush is divided evenly among them.

        Raises DivergedError if a loss is not finite.
        """
        sums = iter(self._copy_unwritten())
        seconds, before = time.monotonic() - self.clock, self.last["seconds"]
        for number, (step, lr, losses) in enumerate(self.unwritten, 1):
            values = {name: next(sums) for name in losses[0]}
            tokens = round(values.pop("tokens"))
            now = before + (seconds - before) * number / len(self.unwritten)
            rate = tokens / max(now - self.last["seconds"], 1e-9)
            total = self.last["tokens"] + tokens
            self.last = {"step": step, **values, "lr": lr, "tokens": total, "seconds": now, "tokens_per_second": rate}
            self._write(self.last)
            self._check(out, step, values["loss"])
        self.unwritten.clear()
        losses_text = " ".join(f"{name} {value:.3g}" for name, value in self.last.items() if name not in NON_LOSS_KEYS)
        self.loss_text = f"{losses_text}, {self.last['tokens_per_second']:.0f} tok/s"

    @property
    def status_line(self) -> str:
        """Text beside the progress bar: the newest held-out metrics, losses and speed."""
        return ", ".join(text for text in (self.heldout_text, self.loss_text) if text)

    def _check(self, out: Path, step: int, loss: float) -> None:
        """Stop the run if the loss is not finite; warn once if the losses have risen."""
        if not math.isfinite(loss):
            self._stop(out, f"the loss is {loss} at update {step}", last_good=step - 2)
        if self.divergence.add(loss):
            level, best = self.divergence.level, self.divergence.best
            warn(
                f"the training loss has risen: its median over the last {WINDOW_UPDATES} updates is {level:.3g}, up "
                f"from {best:.3g}; if it does not fall again, lower --lr (now {self.options.lr:g})"
            )

    def _stop(self, out: Path, what: str, *, last_good: int) -> NoReturn:
        """Delete the checkpoints after update `last_good`, which lead to the same loss again; raise DivergedError."""
        if self.accelerator.is_main_process:
            delete_after(out, last_good)
        self.accelerator.wait_for_everyone()
        found = run_checkpoints(out)
        then = f"continue from {found[-1].name} with --resume" if found else "start again"
        raise DivergedError(f"{what}: lower --lr (now {self.options.lr:g}) and {then}")

    def _copy_unwritten(self) -> list[float]:
        """Copy the held losses from the device in one transfer: means over all processes, but sums of tokens."""
        processes = self.accelerator.num_processes
        sums = [
            torch.stack([micro_batch[name].float() for micro_batch in losses]).sum().to(self.accelerator.device)
            / (1 if name == "tokens" else processes)
            for _, _, losses in self.unwritten
            for name in losses[0]
        ]
        return [float(value) for value in self.accelerator.reduce(torch.stack(sums), "sum").tolist()] if sums else []

    def heldout(self, metrics: dict[str, float]) -> None:
        """Write and show a line of held-out metrics; the time of the evaluation does not count as training.

        Scores of single classes are left to the record: as curves they would be too many.
        """
        metrics = {name: value for name, value in metrics.items() if not ClassScore.parse(name)}
        self.last_heldout = {"step": self.last["step"], "tokens": self.last["tokens"], **metrics}
        self._write(self.last_heldout)
        marks = {name for name in metrics if MetricName.parse(name).metric in FAILURES}
        words = [
            f"{MetricName.parse(name).metric.removeprefix('heldout_').replace('_', ' ')} {value:.3g}"
            for name, value in metrics.items()
            if name not in marks
        ]
        self.heldout_text = f"held-out {', '.join(words)}" if words else ""
        aside(f"update {self.last['step']}: {self.heldout_text}")
        self.clock = time.monotonic() - self.last["seconds"]

    def _write(self, line: dict[str, Any]) -> None:
        self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=line["step"])
        if self.accelerator.is_main_process:
            append_text(self.path, _line_text(line))

    def close(self) -> dict[str, float]:
        """Close the tracker; return the totals of the run and its last held-out metrics."""
        close_tracker(self.accelerator)
        totals = {name: float(self.last[name]) for name in ("loss", "tokens", "seconds")}
        return {
            "updates": float(self.last["step"]),
            **totals,
            "tokens_per_second": totals["tokens"] / max(totals["seconds"], 1e-9),
            "peak_memory_bytes": float(peak_memory(self.accelerator.device)),
            **{name: value for name, value in self.last_heldout.items() if name not in ("step", "tokens")},
        }


def _line_text(line: dict[str, Any]) -> str:
    return json_text(line, indent=None) + "\n"


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Read the updates and held-out metrics of a directory's train.jsonl, [] without one.

    Lines that cannot be read (such as the last line of a killed run) are skipped with a warning. A value that JSON
    cannot hold, written as null, is NaN.
    """
    path = directory / LOG
    if not path.is_file():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    entries = [entry for entry in map(parse_line, texts) if entry != {}]
    if unread := entries.count(None):
        warn(f"'{path}' has {unread} unreadable lines, which are skipped")
    return [entry for entry in entries if entry]


def parse_line(text: str) -> dict[str, Any] | None:
    """Return a line's numbers; {} if it has no step and tokens (a row of data), None if it is not a JSON object."""
    try:
        found = json.loads(text or "{}").items()
    except (ValueError, AttributeError, RecursionError):
        return None
    entry = {name: math.nan if value is None else value for name, value in found if value is None or is_number(value)}
    is_line = {"step", "tokens"} <= entry.keys() and isinstance(entry["step"], int)
    return entry if is_line else {}


def check_tracker(name: str | None) -> None:
    """Raise DistilkitError if the package of a tracker is not installed."""
    if name and name not in [str(tracker) for tracker in get_available_trackers()]:
        raise DistilkitError(f"--log-with {name} requires a missing package: pip install 'distilkit[{name}]'")


def open_tracker(accelerator: Accelerator, options: TrainOptions, out: Path, done: int) -> None:
    """Start the tracker of --log-with, if given; accelerator.log() then reaches it."""
    check_tracker(options.log_with)
    if options.log_with is None:
        return
    accelerator.project_configuration.logging_dir = str(out / "tensorboard")  # only TensorBoard uses it
    accelerator.log_with = filter_trackers([options.log_with], accelerator.logging_dir)
    # purge_step removes what the interrupted run logged after its last checkpoint.
    settings = {"tensorboard": {"purge_step": done + 1}, "wandb": {"name": out.name}, "trackio": {"name": out.name}}
    plain = {name: value for name, value in config_json(options).items() if isinstance(value, (str, int, float))}
    if options.log_with == "tensorboard":
        note_made(out / "tensorboard", whole=True)
    accelerator.init_trackers(PROJECT, config=plain, init_kwargs=settings)


def close_tracker(accelerator: Accelerator) -> None:
    """Make the trackers write their buffers."""
    for tracker in accelerator.trackers:  # end_training() would also end the process group
        tracker.finish()
    accelerator.trackers = []
