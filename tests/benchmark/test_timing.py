"""Timing in alternation, on a clock that only the models move; the random inputs; latency and throughput by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distilkit.benchmark import timing
from distilkit.benchmark.contenders import Contender
from distilkit.benchmark.inputs import random_inputs
from distilkit.benchmark.timing import MAX_WARM_UP, measure, speedup, summarise, warm_up
from distilkit.options.bench import BenchOptions
from distilkit.record import BenchSetting

SETTING = BenchSetting("cpu", "fp32", 4, 16)


class Clock:
    """A clock that only models move; `drift` makes every pair of calls slower than the one before."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now, self.drift, self.calls = 0.0, drift, []

    def spend(self, name: str, seconds: float) -> None:
        self.now += seconds * (1 + self.drift * (len(self.calls) // 2))
        self.calls.append(name)


class Sleeper(nn.Module):
    """A model whose forward pass takes a given number of seconds on the clock."""

    def __init__(self, name: str, seconds: float, clock: Clock) -> None:
        super().__init__()
        self.name, self.seconds, self.clock = name, seconds, clock
        self.config = SimpleNamespace(vocab_size=10, pad_token_id=0)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        assert input_ids.shape == attention_mask.shape
        self.clock.spend(self.name, self.seconds)


def measure_sleepers(monkeypatch: pytest.MonkeyPatch, clock: Clock, **seconds: float) -> dict[str, float]:
    """Measure sleepers of these names and seconds on the clock, five runs each."""
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(timing, "peak_memory", lambda *_: 0)
    sleepers = [Sleeper(name, each, clock) for name, each in seconds.items()]
    contenders = [Contender(model.name, model, model) for model in sleepers]
    options = BenchOptions(models=tuple(seconds), runs=5)
    return measure(contenders, SETTING, options, lambda *_: None)


def test_a_model_twice_as_fast_has_a_speedup_of_two_under_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower and slower does not change the speed-up, because neighbouring runs are compared."""
    found = measure_sleepers(monkeypatch, Clock(drift=0.3), slow=0.2, fast=0.1)
    assert found[f"1/{SETTING}/speedup"] == pytest.approx(2.0)
    assert found[f"0/{SETTING}/latency_ms_p95"] > 1.2 * found[f"0/{SETTING}/latency_ms_p50"]


def test_models_run_in_alternation_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is A A A B B B for the warm-up, then A B A B and so on."""
    clock = Clock()
    measure_sleepers(monkeypatch, clock, a=0.2, b=0.1)
    assert clock.calls == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 5


@pytest.mark.parametrize(
    ("seconds", "passes"),
    [
        ([1.0, 1.0, 1.0], 3),
        ([9.0, 4.0, 2.0, 1.0, 0.99, 1.2], 6),
        ([2.0, 3.0, 1.0, 3.0, 1.0], 5),
        ([0.9**n for n in range(100)], 1 + MAX_WARM_UP),
    ],
)
def test_the_warm_up_ends_when_passes_get_no_faster(seconds: list[float], passes: int) -> None:
    """After two passes in a row that are at most 5 % faster than the fastest before, and in any case at a limit."""
    left = iter(seconds)
    warm_up(lambda: next(left))
    assert len(seconds) - len(list(left)) == passes


def test_latency_and_throughput_by_hand() -> None:
    """Passes of 0.1, 0.1 and 0.4 s of 4 x 16 tokens: median 100 ms, 12 sequences in 0.6 s."""
    found = summarise(np.array([0.1, 0.4, 0.1]), 12, 192)
    assert found == pytest.approx(
        {
            "latency_ms_p50": 100.0,
            "latency_ms_p95": 370.0,  # nine tenths of the way from 100 to 400
            "latency_ms_p99": 394.0,
            "throughput_sequences_per_second": 20.0,
            "tokens_per_second": 320.0,
        }
    )


def test_speedup_by_hand() -> None:
    """Ratios of 1, 2 and 4: their median; over texts the ratio of the totals, 7 of 3 seconds."""
    first, own = np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0])
    assert speedup(first, own, total=False) == pytest.approx({"speedup": 2, "speedup/low": 1.05, "speedup/high": 3.9})
    assert speedup(first, own, total=True)["speedup"] == pytest.approx(7 / 3)


def test_inputs_are_in_every_vocabulary_and_are_not_padding() -> None:
    """Ids stay below the smallest vocabulary size and avoid every padding id; the seed determines them."""
    contenders = []
    for name, size, padding in (("a", 5, 0), ("b", 9, 3), ("c", 9, None)):
        model = Sleeper(name, 0, Clock())
        model.config = SimpleNamespace(vocab_size=size, pad_token_id=padding)
        contenders.append(Contender(name, model, model))
    found, *_ = random_inputs(contenders, SETTING, seed=1)
    assert set(found["input_ids"].unique().tolist()) == {1, 2, 4}
    assert found["input_ids"].shape == found["attention_mask"].shape == (4, 16)
    assert torch.equal(found["input_ids"], random_inputs(contenders, SETTING, seed=1)[0]["input_ids"])
    assert not torch.equal(found["input_ids"], random_inputs(contenders, SETTING, seed=2)[0]["input_ids"])
