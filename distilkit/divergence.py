"""Detect a rise of the training loss; robust to noise, single spikes and overfitting."""

from collections import deque
from statistics import median

FIRST = 10  # updates whose median is the level of an untrained student
WINDOW = 50  # updates that are looked at together


class Divergence:
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
