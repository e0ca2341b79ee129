"""Best: which weights are kept, when a run has had enough, and what a checkpoint holds."""

import pytest
import torch

from distilkit.training.stopping import EarlyStopping


class Counter(torch.nn.Linear):
    """A model whose one weight is the number of its evaluation."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)


def watch(scores: list[float], **options: object) -> tuple[EarlyStopping, Counter]:
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


@pytest.mark.parametrize(("keep", "kept", "score"), [("best", 2, 0.9), ("last", 4, 0.7)])
def test_keeps_the_first_of_the_best_or_the_last(keep: str, kept: int, score: float) -> None:
    """restore() puts back the weights of the highest score, of equal ones the first, or leaves the last."""
    best, model = watch([0.5, 0.9, 0.9, 0.7], keep=keep)
    evaluate(best, model, 4)
    assert model.training
    assert best.restore() == {"a/score": score}
    assert (model.weight.item(), best.kept) == (kept, kept)


def test_patience() -> None:
    """Two evaluations that are no better are enough; a better one begins the count anew."""
    best, model = watch([0.5, 0.4, 0.6, 0.6, 0.1], patience=2)
    said = []
    for _ in range(5):
        evaluate(best, model, 1)
        said.append(best.enough())
    assert said == [False, False, False, False, True]


def test_goes_on_from_a_checkpoint() -> None:
    """What a checkpoint held is all that it takes to keep what an uninterrupted run would."""
    first, model = watch([0.5, 0.9, 0.1], patience=2)
    evaluate(first, model, 3)
    second, other = watch([0.2], patience=2)
    second.load_state_dict(first.state_dict())
    evaluate(second, other, 1)
    assert second.enough()
    assert second.restore() == {"a/score": 0.9}
    assert (other.weight.item(), second.kept) == (2, 2)
