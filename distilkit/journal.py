"""train.jsonl: what a training run came to, a line an update, read off the device only now and then."""

import json
import math
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from distilkit.errors import DivergedError
from distilkit.record import write_text
from distilkit.snapshot import snapshots


class Journal:
    """The lines of one run so far, those of an interrupted run included."""

    def __init__(self, out: Path, accelerator: Accelerator, done: int) -> None:
        self.path, self.accelerator = out / "train.jsonl", accelerator
        self.pending: list[tuple[int, float, list[dict[str, Tensor]]]] = []
        self.text = ""
        self.lines = _lines_until(self.path, done)
        self.last = next(
            (line for line in reversed(self.lines) if "loss" in line), {"step": 0, "tokens": 0, "seconds": 0.0}
        )
        if accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self.clock = time.monotonic() - self.last["seconds"]

    def update(self, step: int, lr: float, readings: list[dict[str, Tensor]]) -> None:
        """Keep the losses of an update, still on the device."""
        self.pending.append((step, lr, readings))

    def flush(self, out: Path) -> None:
        """Write the pending updates; their time is shared evenly among them.

        Raises DistilkitError where a loss isn't finite.
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
            if not math.isfinite(values["loss"]):
                raise DivergedError(f"the loss is {values['loss']} at update {step}: lower --lr{_last_good(out)}")
        self.pending.clear()
        self.text = f"loss {self.last['loss']:.3f}, {self.last['tokens_per_second']:.0f} tokens/s"

    def _read_pending(self) -> list[float]:
        """Read the pending losses off the device at once: means over the tokens of all processes, but tokens summed."""
        processes = self.accelerator.num_processes
        sums = [
            torch.stack([reading[name].float() for reading in readings]).sum() / (1 if name == "tokens" else processes)
            for _, _, readings in self.pending
            for name in readings[0]
        ]
        return [float(value) for value in self.accelerator.reduce(torch.stack(sums), "sum").tolist()] if sums else []

    def heldout(self, metrics: dict[str, float]) -> None:
        """Write a held-out line; the time it took doesn't count as training."""
        self._write({"step": self.last["step"], "tokens": self.last["tokens"], **metrics})
        self.clock = time.monotonic() - self.last["seconds"]

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def summary(self) -> dict[str, float]:
        """Return the run's totals and its last held-out metrics."""
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


def _last_good(out: Path) -> str:
    found = snapshots(out)
    return f", or go on with --resume from {found[-1].name}" if found else ""


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
