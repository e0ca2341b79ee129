"""The best weights of a training run: those of the evaluation with the highest score, and when to look no further."""

import math
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel


class EarlyStopping:
    """Scores a model whenever it is called, and keeps what restore() gives back: the best weights, or the last ones.

    Of equal scores the first is the best. A checkpoint of the run holds it too (state_dict), so that a run that goes on
    from there keeps what an uninterrupted one would.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        score: Callable[[], dict[str, float]],
        headline: str,
        *,
        keep: str = "best",
        patience: int | None = None,
    ) -> None:
        self.model, self.score, self.headline, self.keep, self.patience = model, score, headline, keep, patience
        self.highest, self.evaluations, self.best = -math.inf, 0, 0  # best: the number of an evaluation, from 1
        self.kept = 0
        self.scores: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def __call__(self) -> dict[str, float]:
        """Score the model, and leave it in training mode."""
        scores = self.score()
        self.model.train()
        self.evaluations += 1
        better = scores[self.headline] > self.highest
        if better:
            self.highest, self.best = scores[self.headline], self.evaluations
        if better or self.keep == "last":
            self.scores, self.kept = scores, self.evaluations
        if better and self.keep == "best":
            self.weights = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()
            }
        return scores

    def enough(self) -> bool:
        """Say whether `patience` evaluations have gone by without a better score."""
        return self.patience is not None and self.evaluations - self.best >= self.patience

    def restore(self) -> dict[str, float]:
        """Put the weights to keep back into the model; returns their scores."""
        if self.weights:
            self.model.load_state_dict(self.weights)
        return self.scores

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        names = ("highest", "evaluations", "best", "kept", "scores", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint held."""
        vars(self).update(state)


FIRST = 10  # updates whose median is the level of an untrained student


WINDOW = 50  # updates that are looked at together


class DivergenceDetector:
    """The losses of a run, and whether they have risen from the best level that they had reached.

    They have where nine in ten of the last WINDOW losses are above a limit: half as much again as the best level so
    far, a quarter of the way back to the first, and 0.1 more than the best, whichever is highest. A level is a median,
    so single losses far off change nothing.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.count = 0
        self.first = self.best = self.level = 0.0
        self.found = False

    def add(self, loss: float) -> bool:
        """Take the loss of the next update; returns whether the losses have risen, True once only."""
        self.recent.append(loss)
        self.count += 1
        if self.count <= FIRST:
            self.first = self.best = median(self.recent)
        if self.found or self.count < WINDOW:
            return False
        ordered = sorted(self.recent)
        self.level = median(ordered)
        self.best = min(self.best, self.level)
        rise = max(self.best / 2, (self.first - self.best) / 4, 0.1)
        self.found = ordered[WINDOW // 10] > self.best + rise
        return self.found


def stop_on_all_processes(accelerator: Accelerator, stop: bool, *, asked: bool) -> bool:
    """Say whether to stop: several processes do where any of them was told to, and ask each other only now and then."""
    if accelerator.num_processes == 1:
        return stop
    return asked and bool(accelerator.reduce(torch.tensor(float(stop), device=accelerator.device), "sum") > 0)


_open: list[list[int]] = []  # the signals that the stop_signal() of this process has received, where there is one


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM has come; a second SIGINT interrupts at once.

    Within another one it listens to the same: what comes at the end of one run is then heard by the next.
    """
    if _open:
        outer = _open[0]
        yield lambda: bool(outer)
        return
    received: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
        _open.append(received)
    except ValueError:  # not the main thread: signals stay with whoever has them
        pass
    try:
        yield lambda: bool(received)
    finally:
        if before:
            _open.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
