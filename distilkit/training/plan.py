"""`distill --plan`: what a run will take, measured on a few of its own updates."""

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

FIRST = 3  # updates that show how many more can be timed
SECONDS = 12.0  # that the timed ones take together
FEWEST, MOST = 5, 100  # of them, whatever they take


def calibrate(
    objective: Objective,
    batches: Batches,
    config: TrainOptions,
    out: Path,
    *,
    evaluate: Callable[[], dict[str, float]],
    evaluate_every: int,
    label: str,
) -> dict[str, float]:
    """Make a few updates in a directory that is thrown away, and return what train(…) would take.

    `seconds` is the time of the updates, `heldout_seconds` of all readings of held-out text; `peak_memory_bytes` has
    the optimizer's state in it, `memory_bytes` is what there is. The objective is trained a little by this.
    """
    look = Look(evaluate)

    def time_updates(count: int) -> dict[str, float]:
        forget()
        short = shorten(config, count, compile=config.compile and look.seconds is None)  # models stay compiled
        return train(objective, batches, short, out, evaluate=look, label=f"{label}, {count} updates to plan")

    updates = count_updates(batches, config, state().num_processes)
    first = time_updates(min(FIRST, updates))
    count = max(FEWEST, min(MOST, updates, round(SECONDS * first["updates"] / max(first["seconds"], 1e-9))))
    timed = time_updates(count)
    looking = 1 + updates // evaluate_every + bool(updates % evaluate_every)
    epochs = updates * config.accumulate * state().num_processes / batches.per_epoch
    return {
        "updates": float(updates),
        **({} if getattr(config, "streaming", False) else {"epochs": epochs}),  # a stream doesn't say how long it is
        "tokens": round(updates * timed["tokens"] / count),
        "tokens_per_second": timed["tokens_per_second"],
        "seconds": updates * timed["seconds"] / count,
        "heldout_seconds": looking * (look.seconds or 0.0),
        "peak_memory_bytes": timed["peak_memory_bytes"],
        "memory_bytes": float(total_memory(device())),
    }


class Look:
    """An evaluate() that is timed, and asked once only: a second time it would say the same."""

    def __init__(self, evaluate: Callable[[], dict[str, float]]) -> None:
        self.evaluate = evaluate
        self.seconds: float | None = None

    def __call__(self) -> dict[str, float]:
        if self.seconds is None:
            started = time.monotonic()
            self.evaluate()
            self.seconds = time.monotonic() - started
        return {}


def shorten(config: TrainOptions, count: int, *, compile: bool) -> TrainOptions:
    """Return a config for so many updates that leave nothing behind."""
    return replace(
        config, steps=count, log_every=1, checkpoint_every=count + 1, resume=False, log_with=None, compile=compile
    )


def forget() -> None:
    """Give back what the updates before have left, so that the peak of memory is that of those to come."""
    gc.collect()  # their optimizer
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
