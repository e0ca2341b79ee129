"""train.jsonl: what a training run came to, a line an update, read off the device only now and then."""

import json
import math
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.tracking import filter_trackers, get_available_trackers
from torch import Tensor

from distilkit.errors import DistilkitError, DivergedError
from distilkit.files import write_text
from distilkit.options.training import TrainOptions
from distilkit.progress import aside, warn
from distilkit.record import config_json
from distilkit.training.memory import peak_memory
from distilkit.training.resume import delete_after, run_checkpoints
from distilkit.training.stopping import WINDOW, DivergenceDetector

NO_PART = {"step", "lr", "tokens", "seconds", "tokens_per_second"}  # of a line: what is no loss


class TrainingLog:
    """The lines of one run so far, those of an interrupted run included."""

    def __init__(self, out: Path, accelerator: Accelerator, config: TrainOptions, done: int) -> None:
        self.path, self.accelerator, self.config = out / "train.jsonl", accelerator, config
        self.pending: list[tuple[int, float, list[dict[str, Tensor]]]] = []
        self.losses = self.examined = ""  # the newest of both kinds of lines in words
        self.divergence = DivergenceDetector()
        self.lines = _lines_until(self.path, done)
        self.last = next(
            (line for line in reversed(self.lines) if "loss" in line), {"step": 0, "tokens": 0, "seconds": 0.0}
        )
        if accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        for line in self.lines:
            if "loss" in line:
                self.divergence.add(line["loss"])
        open_tracker(accelerator, config, out, done)
        self.clock = time.monotonic() - self.last["seconds"]

    def update(self, step: int, lr: float, readings: list[dict[str, Tensor]]) -> None:
        """Keep the losses of an update, still on the device."""
        self.pending.append((step, lr, readings))

    def flush(self, out: Path) -> None:
        """Write the pending updates; their time is shared evenly among them.

        Raises DivergedError if a loss is not finite.
        """
        sums = iter(self._read_pending())
        seconds, before = time.monotonic() - self.clock, self.last["seconds"]
        for place, (step, lr, readings) in enumerate(self.pending, 1):
            values = {name: next(sums) for name in readings[0]}
            tokens = round(values.pop("tokens"))
            now = before + (seconds - before) * place / len(self.pending)
            rate = tokens / max(now - self.last["seconds"], 1e-9)
            total = self.last["tokens"] + tokens
            self.last = {"step": step, **values, "lr": lr, "tokens": total, "seconds": now, "tokens_per_second": rate}
            self._write(self.last)
            self._check(out, step, values["loss"])
        self.pending.clear()
        parts = " ".join(f"{name} {value:.3g}" for name, value in self.last.items() if name not in NO_PART)
        self.losses = f"{parts}, {self.last['tokens_per_second']:.0f} tok/s"

    @property
    def text(self) -> str:
        """What to show beside the bar: losses, speed, and what the last held-out reading said."""
        return ", ".join(part for part in (self.losses, self.examined) if part)

    def _check(self, out: Path, step: int, loss: float) -> None:
        """Stop the run if the loss is not finite; warn once if the losses have risen."""
        if not math.isfinite(loss):
            self._stop(out, f"the loss is {loss} at update {step}", last_good=step - 2)
        if self.divergence.add(loss):
            level, best = self.divergence.level, self.divergence.best
            warn(
                f"the training loss has risen: its median over the last {WINDOW} updates is {level:.3g}, it was "
                f"{best:.3g} before; if it does not fall again, lower --lr (now {self.config.lr:g})"
            )

    def _stop(self, out: Path, what: str, *, last_good: int) -> NoReturn:
        """Delete the checkpoint whose weights gave the loss: --resume from there would only compute it again."""
        if self.accelerator.is_main_process:
            delete_after(out, last_good)
        self.accelerator.wait_for_everyone()
        found = run_checkpoints(out)
        then = f"go on with --resume from {found[-1].name}" if found else "start again"
        raise DivergedError(f"{what}: lower --lr (now {self.config.lr:g}) and {then}")

    def _read_pending(self) -> list[float]:
        """Read the pending losses off the device at once: means over the tokens of all processes, but tokens summed."""
        processes = self.accelerator.num_processes
        sums = [
            torch.stack([reading[name].float() for reading in readings]).sum().to(self.accelerator.device)
            / (1 if name == "tokens" else processes)
            for _, _, readings in self.pending
            for name in readings[0]
        ]
        return [float(value) for value in self.accelerator.reduce(torch.stack(sums), "sum").tolist()] if sums else []

    def heldout(self, metrics: dict[str, float]) -> None:
        """Write and show a held-out line; the time it took doesn't count as training."""
        self._write({"step": self.last["step"], "tokens": self.last["tokens"], **metrics})
        words = [f"{name.removeprefix('heldout_')} {value:.4g}" for name, value in metrics.items()]
        self.examined = f"held-out {', '.join(words)}" if words else ""
        aside(f"update {self.last['step']}: {self.examined}")
        self.clock = time.monotonic() - self.last["seconds"]

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=line["step"])
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def close(self) -> dict[str, float]:
        """Close the tracker and return the run's totals and its last held-out metrics."""
        close_tracker(self.accelerator)
        heldout: dict[str, Any] = next((line for line in reversed(self.lines) if "loss" not in line), {})
        totals = {name: float(self.last[name]) for name in ("loss", "tokens", "seconds")}
        return {
            "updates": float(self.last["step"]),
            **totals,
            "tokens_per_second": totals["tokens"] / max(totals["seconds"], 1e-9),
            "peak_memory_bytes": float(peak_memory(self.accelerator.device)),
            **{name: value for name, value in heldout.items() if name not in ("step", "tokens")},
        }


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    if not step or not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [line for line in lines if line["step"] <= step]


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
