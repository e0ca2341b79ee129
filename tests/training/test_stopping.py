"""Early stopping with the best weights, and the detection of rising losses."""

import math
import random
from collections.abc import Callable

import pytest
import torch

from distilkit.training.stopping import WINDOW_UPDATES, DivergenceDetector, EarlyStopping


class Counter(torch.nn.Linear):
    """A model whose one weight is the number of its evaluation."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)


def early_stopping(scores: list[float], **options: object) -> tuple[EarlyStopping, Counter]:
    model = Counter()
    given = iter(scores)
    best = EarlyStopping(model, lambda: {"a/score": next(given)}, "a/score", **options)  # type: ignore[arg-type]
    return best, model


def evaluate(best: EarlyStopping, model: Counter, count: int) -> None:
    for _ in range(count):
        model.eval()
        with torch.no_grad():
            model.weight.fill_(best.evaluations + 1)
        best()


@pytest.mark.parametrize(("keep", "kept", "score"), [("best", 3, 0.9), ("last", 4, 0.7)])
def test_keeps_the_last_of_the_best_or_the_last(keep: str, kept: int, score: float) -> None:
    """restore() loads the weights of the highest score, the last of equal ones; with keep="last", the last ones."""
    best, model = early_stopping([0.5, 0.9, 0.9, 0.7], keep=keep)
    evaluate(best, model, 4)
    assert model.training
    assert best.restore() == {"a/score": score}
    assert (model.weight.item(), best.kept) == (kept, kept)


def test_patience() -> None:
    """With a patience of 2, the run stops after two evaluations in a row without a better score."""
    best, model = early_stopping([0.5, 0.4, 0.6, 0.6, 0.1], patience=2)
    decisions = []
    for _ in range(5):
        evaluate(best, model, 1)
        decisions.append(best.should_stop())
    assert decisions == [False, False, False, False, True]


def test_resumes_from_a_checkpoint() -> None:
    """A resumed run keeps the same weights and stops at the same evaluation as an uninterrupted one."""
    first, model = early_stopping([0.5, 0.9, 0.1], patience=2)
    evaluate(first, model, 3)
    second, other = early_stopping([0.2], patience=2)
    second.load_state_dict(first.state_dict())
    evaluate(second, other, 1)
    assert second.should_stop()
    assert second.restore() == {"a/score": 0.9}
    assert (other.weight.item(), second.kept) == (2, 2)


UPDATES = 1000


def noise(number: int, scale: float) -> float:
    return random.Random(number).gauss(0, scale)  # noqa: S311 - no secret


def falling(step: int) -> float:
    """A masked-LM loss: from 10 to 3, with the noise of small batches."""
    return 3 + 7 * math.exp(-step / 100) + noise(step, 0.5)


HEALTHY: dict[str, Callable[[int], float]] = {
    "small batches": falling,
    "spikes": lambda step: falling(step) + (30 if step % 40 == 0 else 0),
    "nothing to learn": lambda step: 0.69 + noise(step, 0.2),
    "overfitting": lambda step: 0.7 * math.exp(-step / 50) + abs(noise(step, 0.02)) * (20 if step % 9 == 0 else 1),
    "warm-up from a good start": lambda step: 4 + 0.8 * math.exp(-(((step - 60) / 40) ** 2)) + noise(step, 0.2),
    "a loss term that ends": lambda step: 12 if step < 500 else 2,
}


DIVERGING: dict[str, Callable[[int], float]] = {
    "a jump to a plateau": lambda step: falling(step) if step < 400 else 7 + noise(step, 0.2),
    "a climb": lambda step: falling(step) + max(0, step - 400) / 20,
    "growth without bound": lambda step: falling(step) * 1.02 ** max(0, step - 400),
    "half the way back": lambda step: 12 + 28 * math.exp(-step / 50) if step < 400 else 26,
}


def warnings(loss: Callable[[int], float]) -> list[int]:
    """Return the updates at which the detector reports a rise."""
    detector = DivergenceDetector()
    return [step for step in range(1, UPDATES + 1) if detector.add(loss(step))]


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_losses_give_no_warning(name: str) -> None:
    """Noise, outliers, overfitting and a plateau are not reported."""
    assert warnings(HEALTHY[name]) == []


@pytest.mark.parametrize("name", DIVERGING)
def test_a_lasting_rise_is_reported_once(name: str) -> None:
    """The rise starts at update 400 and is reported within 200 updates."""
    (found,) = warnings(DIVERGING[name])

    assert 400 < found <= 600


def test_a_rise_at_the_start_is_reported() -> None:
    """A learning rate that is too high from the first update on is reported although the loss never fell."""
    # From update 56 on, 45 of the last 50 losses are above the limit.
    assert warnings(lambda step: 10 if step < 12 else 30) == [WINDOW_UPDATES + 6]
