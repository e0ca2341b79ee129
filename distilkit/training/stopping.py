"""When to stop a run: early stopping with the best weights, rising losses, signals."""

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

from distilkit.signals import stopping_signals

FIRST_UPDATES = 10  # the median of their losses is the level of an untrained student
WINDOW_UPDATES = 50  # the detector compares medians over this many updates

_received: list[list[int]] = []  # of the open stop_signal(), if any: the signals so far


class EarlyStopping:
    """Score a model on each call, and hold the weights that restore() puts back: the best or the last ones.

    The best score is the highest of `headline`. Of equal scores the last is kept: its weights were trained longer, at a
    lower rate. Evaluations count from 1: `best` is the first with the best score, from which patience counts, and
    `kept` the one whose weights are held. The state is part of the run's checkpoints, so that a resumed run keeps the
    same weights as an uninterrupted one.
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
        self.highest, self.evaluations, self.best, self.kept = -math.inf, 0, 0, 0
        self.scores: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def __call__(self) -> dict[str, float]:
        """Score the model; leave it in training mode."""
        scores = self.score()
        self.model.train()
        self.evaluations += 1
        is_best = scores[self.headline] >= self.highest
        if scores[self.headline] > self.highest:
            self.highest, self.best = scores[self.headline], self.evaluations
        if is_best or self.keep == "last":
            self.scores, self.kept = scores, self.evaluations
        if is_best and self.keep == "best":
            self.weights = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()
            }
        return scores

    def should_stop(self) -> bool:
        """Return whether the last `patience` evaluations brought no better score."""
        return self.patience is not None and self.evaluations - self.best >= self.patience

    def restore(self) -> dict[str, float]:
        """Load the held weights into the model; return their scores."""
        if self.weights:
            self.model.load_state_dict(self.weights)
        return self.scores

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint of the run."""
        names = ("highest", "evaluations", "best", "kept", "scores", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        vars(self).update(state)


class DivergenceDetector:
    """Detect a lasting rise of the training loss; robust to noise, outliers and overfitting.

    The loss has risen if 90 % of the last WINDOW_UPDATES losses are above a limit. With `best`, the lowest median of
    such a window so far, and `first`, the median of the first losses, the limit is the highest of 1.5 · best,
    best + (first - best) / 4 and best + 0.1.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW_UPDATES)
        self.count = 0
        self.first = self.best = self.level = 0.0
        self.found = False

    def add(self, loss: float) -> bool:
        """Add the loss of the next update; return whether the losses have risen, True at most once."""
        self.recent.append(loss)
        self.count += 1
        if self.count <= FIRST_UPDATES:
            self.first = self.best = median(self.recent)
        if self.found or self.count < WINDOW_UPDATES:
            return False
        ordered = sorted(self.recent)
        self.level = median(ordered)
        self.best = min(self.best, self.level)
        rise = max(self.best / 2, (self.first - self.best) / 4, 0.1)
        self.found = ordered[WINDOW_UPDATES // 10] > self.best + rise
        return self.found


def stop_on_all_processes(accelerator: Accelerator, stop: bool, *, check_now: bool) -> bool:
    """Return whether to stop. Of several processes, all stop if any has to.

    Processes exchange `stop` only if `check_now` is set, since that takes time. `check_now` must be the same in all.
    """
    if accelerator.num_processes == 1:
        return stop
    return check_now and bool(accelerator.reduce(torch.tensor(float(stop), device=accelerator.device), "sum") > 0)


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal asked to stop; a second SIGINT interrupts at once.

    Inside another stop_signal(), both report the same signals, so that one that arrives at the end of a run stops the
    runs that follow.
    """
    if _received:
        outer = _received[0]
        yield lambda: bool(outer)
        return
    received: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, *stopping_signals()):
            before[number] = signal.signal(number, note)
        _received.append(received)
    except ValueError:  # only the main thread may handle signals
        pass
    try:
        yield lambda: bool(received)
    finally:
        if before:
            _received.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
