"""Choose layers: the search measures the loss correctly and finds its best candidate."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, PreTrainedModel

from distilkit.commands.init import init
from distilkit.encoders.layer_selection import (
    STRATEGIES,
    LayerEvaluator,
    alternate,
    neighbouring_choices,
    search,
    spread,
)
from distilkit.errors import DistilkitError
from distilkit.options.init import InitOptions


def make_batch(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 400, (3, 16), generator=generator)
    labels = torch.where(torch.rand(3, 16, generator=generator) < 0.3, ids, -100)
    return {"input_ids": ids.masked_fill(labels != -100, 4), "labels": labels}


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Path]) -> PreTrainedModel:
    """A 6-layer BERT."""
    loaded: PreTrainedModel = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 6)).eval()
    return loaded


@pytest.mark.parametrize(
    ("teacher_layers", "student_layers", "kept"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (24, 12, [0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23]),
        (6, 3, [0, 2, 5]),
        (4, 2, [0, 3]),
        (5, 5, [0, 1, 2, 3, 4]),
        (12, 1, [0]),
    ],
)
def test_spread_is_the_published_choice(teacher_layers: int, student_layers: int, kept: list[int]) -> None:
    """The layers for 12 to 6 are DistilBERT's; other depths follow the same rule."""
    assert spread(teacher_layers, student_layers) == kept


def test_alternate_keeps_layers_at_equal_distances() -> None:
    """The first layer is kept, then every second or third one."""
    assert alternate(12, 6) == [0, 2, 4, 6, 8, 10]
    assert alternate(12, 4) == [0, 3, 6, 9]


def test_loss_and_agreement_are_the_plain_ones(model: PreTrainedModel) -> None:
    """They equal those of a hand-truncated model with full logits and plain cross-entropy."""
    batches = [make_batch(0), make_batch(1)]
    loss, agreement = LayerEvaluator(model, batches).measure([1, 4])
    ids, labels = (torch.cat([batch[name] for batch in batches]) for name in ("input_ids", "labels"))
    with torch.no_grad():
        answers = model(input_ids=ids).logits.argmax(-1)
        whole = model.bert.encoder.layer
        model.bert.encoder.layer = torch.nn.ModuleList([whole[1], whole[4]])
        logits = model(input_ids=ids).logits
        model.bert.encoder.layer = whole
    masked = labels != -100

    assert loss == pytest.approx(float(F.cross_entropy(logits[masked], labels[masked])), abs=1e-5)
    assert agreement == pytest.approx(float((logits.argmax(-1) == answers)[masked].float().mean()))
    assert LayerEvaluator(model, batches).measure(range(6))[1] == 1.0


def test_search_drops_the_cheapest_layer_each_time(model: PreTrainedModel) -> None:
    """The search takes the greedy path, computed step by step here, and ranks it with all strategies."""
    evaluator = LayerEvaluator(model, [make_batch(2)])
    kept = list(range(6))

    def key(layers: list[int]) -> tuple[float, float]:
        loss, agreement = evaluator.measure(layers)
        return -agreement, loss

    while len(kept) > 3:
        kept = min(([i for i in kept if i != dropped] for dropped in kept), key=key)
    ranked = search(evaluator, 6, 3)

    assert {candidate.strategy for candidate in ranked} == {*STRATEGIES, "search"}
    assert next(candidate.layers for candidate in ranked if candidate.strategy == "search") == kept
    assert [(-candidate.agreement, candidate.loss) for candidate in ranked] == sorted(key(c.layers) for c in ranked)


def test_search_by_command_records_the_table(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """The student has the layers of the best candidate, and the record has every candidate."""
    done = init(
        InitOptions(teacher=str(teacher), output=tmp_path / "s", strategy="search", corpus=str(corpus), layers=2)
    )
    agreement = {name: done.metrics[f"strategies/{name}/agreement"] for name in (*STRATEGIES, "search")}
    best = [
        done.environment[f"strategies/{name}"] for name, value in agreement.items() if value == max(agreement.values())
    ]

    assert done.environment["kept_layers"] in best
    assert all(0 <= value <= 1 for value in agreement.values())
    assert all(done.metrics[f"strategies/{name}/loss"] > 0 for name in agreement)


def test_search_needs_text(teacher: Path, tmp_path: Path) -> None:
    """Without --corpus there is no text to measure on."""
    with pytest.raises(DistilkitError, match="--corpus"):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "s", strategy="search"))


def test_every_choice_within_two_exchanges_is_yielded_once() -> None:
    """Nearest first, and never the choice itself."""
    choices = [tuple(layers) for layers in neighbouring_choices([0, 2, 5], 6)]

    assert len(choices) == len(set(choices)) == 9 + 9
    assert (0, 2, 5) not in choices
    assert set(choices[:2]) <= {(0, 1, 5), (1, 2, 5), (0, 3, 5), (0, 2, 4)}
    assert all(len(layers) == 3 and list(layers) == sorted(layers) for layers in choices)
