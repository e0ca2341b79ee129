"""The best weights of a training run: those of the evaluation with the highest score, and when to look no further."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


class Best:
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
