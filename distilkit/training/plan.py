"""`distill --plan` and `bench --plan`: estimate tokens, time and memory of a run from a few of its updates."""

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from distilkit.data.batches import Batches
from distilkit.options.training import TrainOptions
from distilkit.training.devices import device, state
from distilkit.training.loop import count_updates, train
from distilkit.training.memory import total_memory
from distilkit.training.objective import Objective

TRIAL_UPDATES = 3  # they show how many updates fit into TIMED_SECONDS
TIMED_SECONDS = 12.0
MIN_UPDATES, MAX_UPDATES = 5, 100  # limits on the number of timed updates
MAX_QUICK_UPDATES = 20  # where several students are timed in turn


def calibrate(
    objective: Objective,
    batches: Batches,
    options: TrainOptions,
    out: Path,
    *,
    evaluate: Callable[[], dict[str, float]],
    evaluate_every: int,
    label: str,
) -> dict[str, float]:
    """Make a few updates in the temporary directory `out`; return an estimate for train() with the same arguments.

    `seconds` is the time of all updates, `heldout_seconds` that of all evaluations. `peak_memory_bytes` includes the
    optimizer state; `memory_bytes` is the memory of the device. The objective is changed by these updates.
    """
    evaluation = TimedEvaluation(evaluate)

    def time_updates(count: int) -> dict[str, float]:
        free_memory()
        compile_now = options.compile and evaluation.seconds is None  # only the first call compiles the models
        short = shorten(options, count, compile=compile_now)
        return train(objective, batches, short, out, evaluate=evaluation, label=f"{label}, {count} updates to plan")

    updates = count_updates(batches, options, state().num_processes)
    timed = repeat_in(
        TIMED_SECONDS,
        time_updates,
        trial=min(TRIAL_UPDATES, updates),
        least=MIN_UPDATES,
        most=min(MAX_UPDATES, updates),
    )
    evaluations = 1 + updates // evaluate_every + bool(updates % evaluate_every)
    epochs = updates * options.accumulate * state().num_processes / batches.per_epoch
    return {
        "updates": float(updates),
        **({} if getattr(options, "streaming", False) else {"epochs": epochs}),  # the length of a stream is unknown
        "tokens": round(updates * timed["tokens"] / timed["updates"]),
        "tokens_per_second": timed["tokens_per_second"],
        "seconds": updates * timed["seconds"] / timed["updates"],
        "heldout_seconds": evaluations * (evaluation.seconds or 0.0),
        "peak_memory_bytes": timed["peak_memory_bytes"],
        "memory_bytes": float(total_memory(device())),
    }


def measure_speed(
    objective: Objective, batches: Batches, options: TrainOptions, out: Path, *, seconds: float, label: str
) -> float:
    """Return the tokens per second of a run's updates, from one update and as many more as fit into some seconds."""

    def time_updates(count: int) -> dict[str, float]:
        free_memory()
        return train(objective, batches, shorten(options, count, compile=False), out, label=label)

    return repeat_in(seconds, time_updates, trial=1, least=0, most=MAX_QUICK_UPDATES)["tokens_per_second"]


def repeat_in(
    seconds: float, time_updates: Callable[[int], dict[str, float]], *, trial: int, least: int, most: int
) -> dict[str, float]:
    """Make `trial` updates, then as many as fit into `seconds`, from `least` to `most`; return the latter's totals.

    If none fits and `least` is 0, return the totals of the trial: it took long enough to be a measurement.
    """
    tried = time_updates(trial)
    fitting = round(seconds * tried["updates"] / max(tried["seconds"], 1e-9))
    count = max(least, min(most, fitting))
    return time_updates(count) if count else tried


class TimedEvaluation:
    """An evaluate() that measures its first call and skips later ones, which would take the same time."""

    def __init__(self, evaluate: Callable[[], dict[str, float]]) -> None:
        self.evaluate = evaluate
        self.seconds: float | None = None

    def __call__(self) -> dict[str, float]:
        if self.seconds is None:
            started = time.monotonic()
            self.evaluate()
            self.seconds = time.monotonic() - started
        return {}


def shorten(options: TrainOptions, count: int, *, compile: bool) -> TrainOptions:
    """Return options for `count` updates without checkpoints and trackers."""
    return replace(
        options, steps=count, log_every=1, checkpoint_every=count + 1, resume=False, log_with=None, compile=compile
    )


def free_memory() -> None:
    """Free the memory of earlier updates and restart the measurement of peak memory on a GPU."""
    gc.collect()  # frees the optimizer state
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
