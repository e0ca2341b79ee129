"""bench: sizes by hand arithmetic, times on a clock of our own, refusals before any work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from distilkit.benchmark import timing
from distilkit.benchmark.peak_memory import peak_memory
from distilkit.benchmark.timing import Contender, measure, random_inputs, summarise
from distilkit.commands.bench import bench, present
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.record import BenchSetting

CELL = BenchSetting("cpu", "fp32", 4, 16)
V, P, H, FF, LAYERS = 400, 96, 32, 64, 4
BERT_LAYER = 4 * (H * H + H) + (H * FF + FF) + (FF * H + H) + 2 * 2 * H
BERT_ENCODER = (V + P + 2) * H + 2 * H + LAYERS * BERT_LAYER
BERT_HEAD = (H * H + H) + 2 * H + V  # transform, norm, output bias; the output matrix is the word embeddings
CELL_METRICS = {
    "latency_ms_p50",
    "latency_ms_p95",
    "throughput_sequences_per_second",
    "tokens_per_second",
    "peak_memory_bytes",
}


class Clock:
    """A clock that only models move; `drift` makes every later call slower."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now, self.drift, self.calls = 0.0, drift, []

    def spend(self, name: str, seconds: float) -> None:
        self.now += seconds * (1 + self.drift * (len(self.calls) // 2))
        self.calls.append(name)


class Sleeper(nn.Module):
    """A model whose forward pass takes the seconds it is told to, by the clock."""

    def __init__(self, name: str, seconds: float, clock: Clock) -> None:
        super().__init__()
        self.name, self.seconds, self.clock = name, seconds, clock
        self.config = SimpleNamespace(vocab_size=10, pad_token_id=0)

    def forward(self, **_: Tensor) -> None:
        self.clock.spend(self.name, self.seconds)


def contest(monkeypatch: pytest.MonkeyPatch, clock: Clock, **seconds: float) -> dict[str, float]:
    """Measure sleepers in the cell, by the clock."""
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(timing, "peak_memory", lambda *_: 0)
    sleepers = [Sleeper(name, each, clock) for name, each in seconds.items()]
    contenders = [Contender(model.name, model, model) for model in sleepers]
    config = BenchOptions(models=tuple(seconds), runs=5)
    return measure(contenders, CELL, config, lambda *_: None)


def quick(*models: Path, **changes: object) -> BenchOptions:
    settings = {"devices": ("cpu",), "batch_sizes": (2,), "seq_lengths": (16,), "runs": 2} | changes
    return BenchOptions(models=tuple(map(str, models)), **settings)


def test_sizes_are_those_of_the_architecture(teacher: Path) -> None:
    """Parameters equal the sum over the published layout, the tied matrix once; bytes equal the file's size."""
    found = bench(quick(teacher)).metrics
    assert found["0/encoder_parameters"] == BERT_ENCODER
    assert found["0/parameters"] == BERT_ENCODER + BERT_HEAD
    assert found["0/bytes"] == (teacher / "model.safetensors").stat().st_size


def test_every_name_of_the_contract_is_there_and_no_other(teacher: Path, make_checkpoint: Callable[..., Path]) -> None:
    """Two models, two batch sizes and two lengths give four cells each and a speed-up for the second."""
    done = bench(quick(teacher, make_checkpoint("bert", 2), batch_sizes=(1, 2), seq_lengths=(8, 16)))
    cells = [f"cpu/fp32/b{batch}/l{length}" for batch in (1, 2) for length in (8, 16)]
    sizes = {"parameters", "encoder_parameters", "bytes"}
    expected = {f"{i}/{name}" for i in (0, 1) for name in sizes}
    expected |= {f"{i}/{cell}/{name}" for i in (0, 1) for cell in cells for name in CELL_METRICS}
    expected |= {f"1/{cell}/speedup" for cell in cells} | {"1/speedup"}
    assert set(done.metrics) == expected
    assert all(value > 0 for value in done.metrics.values())
    assert done.metrics["1/speedup"] == np.median([done.metrics[f"1/{cell}/speedup"] for cell in cells])


@pytest.mark.parametrize(
    ("auto", "timed"),
    [
        (None, "BertModel"),
        (AutoModel, "BertModel"),
        (AutoModelForSequenceClassification, "BertForSequenceClassification"),
        (AutoModelForQuestionAnswering, "BertForQuestionAnswering"),
    ],
)
def test_task_heads_are_timed_and_vocabulary_heads_are_not(
    auto: type | None, timed: str, make_checkpoint: Callable[..., Path]
) -> None:
    """The record says which class was timed."""
    directory = make_checkpoint("bert", 2, auto) if auto else make_checkpoint("bert", 2)
    assert bench(quick(directory)).environment["timed"] == timed


def test_speedup_of_a_model_twice_as_fast_is_two_under_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbouring runs are compared, so a machine that gets slower all the time changes nothing."""
    found = contest(monkeypatch, Clock(drift=0.3), slow=0.2, fast=0.1)
    assert found[f"1/{CELL}/speedup"] == pytest.approx(2.0)
    assert found[f"0/{CELL}/latency_ms_p95"] > 1.2 * found[f"0/{CELL}/latency_ms_p50"]


def test_models_run_in_turn_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A A A B B B, then A B A B and so on."""
    clock = Clock()
    contest(monkeypatch, clock, a=0.2, b=0.1)
    assert clock.calls == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 5


def test_latency_and_throughput_by_hand() -> None:
    """Passes of 0.1, 0.1 and 0.4 s of 4 x 16 tokens: median 100 ms, 12 sequences in 0.6 s."""
    found = summarise(np.array([0.1, 0.4, 0.1]), CELL)
    assert found == pytest.approx(
        {
            "latency_ms_p50": 100.0,
            "latency_ms_p95": 370.0,  # nine tenths of the way from 100 to 400
            "throughput_sequences_per_second": 20.0,
            "tokens_per_second": 320.0,
        }
    )


def test_peak_memory_by_hand() -> None:
    """Weights of 4,000 bytes; two vectors of 4,000 live together, then one of them with 12,000 more."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1000))
            self.tied = self.weight

        def forward(self, x: Tensor) -> Tensor:
            first = x + self.weight
            second = first * self.weight
            del first
            torch.empty(3000)
            return second

    inputs = {"x": torch.ones(1000)}
    assert peak_memory(Model(), inputs, "cpu") == 4_000 + 4_000 + 12_000


def test_peak_memory_says_nothing_on_stderr(teacher: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command's stderr has the progress lines and nothing of the profiler's."""
    bench(quick(teacher))
    assert all(line.startswith("bench: ") for line in capfd.readouterr().err.splitlines())


@pytest.mark.parametrize(("family", "positions"), [("bert", 96), ("roberta", 97), ("distilbert", 96)])
def test_lengths_are_refused_from_where_the_model_itself_fails(
    family: str, positions: int, make_checkpoint: Callable[..., Path]
) -> None:
    """The longest length that is let through runs; one more breaks the model, and is refused by name before it does."""
    directory = make_checkpoint(family, 2)
    bench(quick(directory, seq_lengths=(positions,)))
    model = AutoModel.from_pretrained(directory)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, positions + 1), 7))
    with pytest.raises(DistilkitError, match=f"--seq-lengths {positions + 1} is longer than the {positions} positions"):
        bench(quick(directory, seq_lengths=(8, positions + 1)))


@pytest.mark.parametrize("options", [{"batch_sizes": (0,)}, {"seq_lengths": (8, -4)}, {"seq_lengths": ()}])
def test_sizes_are_from_1_on(teacher: Path, options: dict[str, tuple[int, ...]]) -> None:
    """None at all is refused too: there would be nothing to measure."""
    with pytest.raises(DistilkitError, match=r"--batch-sizes|--seq-lengths"):
        bench(quick(teacher, **options))


def test_unknown_and_absent_devices_are_refused(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that torch doesn't have is an error that names the flag; by default only present ones are used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DistilkitError, match=r"--devices .*gpu"):
        bench(quick(teacher, devices=("cpu", "gpu")))
    with pytest.raises(DistilkitError, match="--devices cuda: torch finds no CUDA device"):
        bench(quick(teacher, devices=("cuda",)))
    assert present(()) == ["cpu"]


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Run with two threads, whatever came before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("wanted", "used"), [(1, "1"), (None, "2")])
def test_threads_are_recorded_and_given_back(wanted: int | None, used: str, teacher: Path, two_threads: None) -> None:
    """The record says how many threads ran, and afterwards torch has as many as before."""
    assert bench(quick(teacher, threads=wanted)).environment["threads"] == used
    assert torch.get_num_threads() == 2


def test_inputs_are_known_to_every_model_and_none_is_padding() -> None:
    """Ids stay below the smallest vocabulary and off every padding id; the seed decides them."""
    clock = Clock()
    contenders = []
    for name, size, padding in (("a", 5, 0), ("b", 9, 3), ("c", 9, None)):
        model = Sleeper(name, 0, clock)
        model.config = SimpleNamespace(vocab_size=size, pad_token_id=padding)
        contenders.append(Contender(name, model, model))
    found = random_inputs(contenders, CELL, seed=1)
    assert set(found["input_ids"].unique().tolist()) == {1, 2, 4}
    assert found["input_ids"].shape == found["attention_mask"].shape == (4, 16)
    assert torch.equal(found["input_ids"], random_inputs(contenders, CELL, seed=1)["input_ids"])
    assert not torch.equal(found["input_ids"], random_inputs(contenders, CELL, seed=2)["input_ids"])


def test_lower_precision_halves_the_weights_in_memory(teacher: Path) -> None:
    """In bf16 the encoder's weights take 2 bytes a parameter; the size on disk stays."""
    full, half = (bench(quick(teacher, precision=name)).metrics for name in ("fp32", "bf16"))
    saved = full["0/cpu/fp32/b2/l16/peak_memory_bytes"] - half["0/cpu/bf16/b2/l16/peak_memory_bytes"]
    assert saved >= 2 * BERT_ENCODER
    assert full["0/bytes"] == half["0/bytes"]


@pytest.mark.gpu
def test_cuda_is_measured_like_the_cpu(teacher: Path) -> None:
    """On a GPU the same metrics appear under cuda/, memory at least that of the weights, and the GPU's name."""
    done = bench(quick(teacher, devices=("cpu", "cuda")))
    assert {f"0/cuda/fp32/b2/l16/{name}" for name in CELL_METRICS} <= set(done.metrics)
    assert done.metrics["0/cuda/fp32/b2/l16/peak_memory_bytes"] > 4 * BERT_ENCODER
    assert done.environment["gpu"]
