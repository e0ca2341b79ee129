"""Does a run still learn? A rule on its losses that noise and overfitting don't set off."""

from collections import deque
from statistics import median

FIRST = 10  # updates whose median is the level of an untrained student
WINDOW = 50  # updates that are looked at together


class Divergence:
    """The losses of a run, an update at a time, and whether they have left the best level that they had reached.

    A run diverges where nine in ten of its last WINDOW losses are above a limit: half as much again as the best level
    so far, a quarter of the way back to the first, and 0.1 more than the best, whichever is highest. A level is a
    median, so single losses far off change nothing.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.count = self.healthy = 0
        self.first = self.best = self.level = 0.0

    def add(self, step: int, loss: float) -> bool:
        """Take the loss of the next update; returns whether the run has diverged.

        `healthy` is then the last update before which nothing was wrong.
        """
        self.recent.append(loss)
        self.count += 1
        if self.count <= FIRST:
            self.first = self.best = median(self.recent)
        if self.count < WINDOW:
            return False
        ordered = sorted(self.recent)
        self.level = median(ordered)
        self.best = min(self.best, self.level)
        rise = max(self.best / 2, (self.first - self.best) / 4, 0.1)
        if self.level <= self.best + rise / 10:
            self.healthy = step - WINDOW
        return ordered[WINDOW // 10] > self.best + rise
