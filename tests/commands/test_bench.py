"""bench: its metrics, the module that it times, and what it refuses before any work."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import installed
from transformers import AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

from distilkit.benchmark.settings import available_devices
from distilkit.commands.bench import bench
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.record import read_biography

V, P, H, FF, LAYERS = 400, 96, 32, 64, 4
BERT_LAYER = 4 * (H * H + H) + (H * FF + FF) + (FF * H + H) + 2 * 2 * H
BERT_ENCODER = (V + P + 2) * H + 2 * H + LAYERS * BERT_LAYER
BERT_HEAD = (H * H + H) + 2 * H + V  # transform, norm, output bias; the output matrix is the word embeddings
PARTS = ("embeddings", "layers", "head", "other")
SETTING_METRICS = {
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "throughput_sequences_per_second",
    "tokens_per_second",
    "peak_memory_bytes",
}


def quick(*models: Path, **changes: object) -> BenchOptions:
    """Return options for two runs in a single small setting."""
    settings = {"devices": ("cpu",), "batch_sizes": (2,), "seq_lengths": (16,), "runs": 2} | changes
    return BenchOptions(models=tuple(map(str, models)), **settings)


def test_sizes_are_those_of_the_architecture(teacher: Path) -> None:
    """Parameters follow BERT's published layout, with the tied matrix counted once; bytes are the size of the file."""
    found = bench(quick(teacher)).metrics
    assert found["0/encoder_parameters"] == BERT_ENCODER
    assert found["0/parameters"] == BERT_ENCODER + BERT_HEAD
    assert found["0/bytes"] == (teacher / "model.safetensors").stat().st_size


def test_the_metric_names_are_those_of_the_contract(teacher: Path, make_checkpoint: Callable[..., Path]) -> None:
    """Two models, two batch sizes and two lengths give four settings per model, and speed-ups for the second model."""
    done = bench(quick(teacher, make_checkpoint("bert", 2), batch_sizes=(1, 2), seq_lengths=(8, 16)))
    settings = [f"cpu/fp32/b{batch}/l{length}" for batch in (1, 2) for length in (8, 16)]
    sizes = {
        "parameters",
        "encoder_parameters",
        "bytes",
        "weights_memory_bytes",
        *(f"parameters_{part}" for part in PARTS),
    }
    expected = {f"{i}/{name}" for i in (0, 1) for name in sizes}
    expected |= {f"{i}/{setting}/{name}" for i in (0, 1) for setting in settings for name in SETTING_METRICS}
    expected |= {f"1/{setting}/{name}" for setting in settings for name in ("speedup", "speedup/low", "speedup/high")}
    assert set(done.metrics) == expected | {"1/speedup"}
    assert next(iter(done.metrics)) == "1/speedup"
    assert all(value > 0 for value in done.metrics.values())
    assert done.metrics["1/speedup"] == np.median([done.metrics[f"1/{setting}/speedup"] for setting in settings])


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


def test_the_profiler_does_not_write_to_stderr(teacher: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command's stderr has its progress lines only."""
    bench(quick(teacher))
    lines = capfd.readouterr().err.splitlines()
    assert all(line.startswith(("bench: ", "distilkit: warning: other processes")) for line in lines)


@pytest.mark.parametrize(("family", "positions"), [("bert", 96), ("roberta", 97), ("distilbert", 96)])
def test_lengths_beyond_the_positions_are_refused(
    family: str, positions: int, make_checkpoint: Callable[..., Path]
) -> None:
    """The longest accepted length runs. One token more would crash the model, so it is refused with the flag's name."""
    directory = make_checkpoint(family, 2)
    bench(quick(directory, seq_lengths=(positions,)))
    model = AutoModel.from_pretrained(directory)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, positions + 1), 7))
    with pytest.raises(DistilkitError, match=f"--seq-lengths {positions + 1} .*{positions} positions of '{directory}'"):
        bench(quick(directory, seq_lengths=(8, positions + 1)))


@pytest.mark.parametrize("options", [{"batch_sizes": (0,)}, {"seq_lengths": (8, -4)}, {"seq_lengths": ()}])
def test_sizes_below_1_are_refused(teacher: Path, options: dict[str, tuple[int, ...]]) -> None:
    """An empty list is refused too, because there would be nothing to measure."""
    with pytest.raises(DistilkitError, match=r"--batch-sizes|--seq-lengths"):
        bench(quick(teacher, **options))


def test_unknown_and_absent_devices_are_refused(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that torch does not have is an error that names the flag. By default all available devices are used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DistilkitError, match=r"--devices .*gpu"):
        bench(quick(teacher, devices=("cpu", "gpu")))
    with pytest.raises(DistilkitError, match="--devices cuda"):
        bench(quick(teacher, devices=("cuda",)))
    assert available_devices(()) == ["cpu"]


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Run with two threads; restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("wanted", "used"), [(1, "1"), (None, "2")])
def test_threads_are_recorded_and_restored(wanted: int | None, used: str, teacher: Path, two_threads: None) -> None:
    """The record has the number of threads in use. Afterwards torch has as many as before."""
    assert bench(quick(teacher, threads=wanted)).environment["threads"] == used
    assert torch.get_num_threads() == 2


def test_lower_precision_halves_the_weights_in_memory(teacher: Path) -> None:
    """In bf16 the encoder's weights take 2 bytes per parameter. The size on disk does not change."""
    full, half = (bench(quick(teacher, precision=name)).metrics for name in ("fp32", "bf16"))
    saved = full["0/cpu/fp32/b2/l16/peak_memory_bytes"] - half["0/cpu/bf16/b2/l16/peak_memory_bytes"]
    assert saved >= 0.95 * 2 * BERT_ENCODER  # with several threads, bf16 kernels take a little memory of their own
    assert full["0/bytes"] == half["0/bytes"]


def test_exports_and_checkpoints_in_one_comparison(classifier: Path, exported: Path) -> None:
    """An export is timed beside its checkpoint. Its bytes are those of its graph and weights."""
    done = bench(quick(classifier, exported))
    assert done.environment["timed"] == "RobertaForSequenceClassification, RuntimeModel"
    assert done.metrics["1/bytes"] == sum(path.stat().st_size for path in exported.glob("model.onnx*"))
    assert done.metrics["1/cpu/fp32/b2/l16/speedup"] > 0
    with pytest.raises(DistilkitError, match=f"--seq-lengths 97 .*96 positions of '{exported}'"):
        bench(quick(exported, seq_lengths=(97,)))


def test_int8_in_torch_is_made_on_the_fly(classifier: Path) -> None:
    """Each checkpoint is measured in each runtime; the record names both."""
    done = bench(quick(classifier, runtimes=("torch", "torch-int8")))
    assert done.config["models"] == [f"{classifier} [torch]", f"{classifier} [torch-int8]"]
    assert done.metrics["0/parameters"] == done.metrics["1/parameters"]


@pytest.mark.slow
@pytest.mark.skipif(not installed("onnx"), reason="requires distilkit[onnx]")
def test_onnx_is_made_on_the_fly(classifier: Path) -> None:
    """A process that loads a program needs less memory, because it loads no torch."""
    done = bench(quick(classifier, runtimes=("torch", "onnx", "onnx-int8"), load=True))
    torch_peak, onnx_peak = (done.metrics[f"{i}/process_peak_bytes"] for i in (0, 1))
    assert done.metrics["2/bytes"] != done.metrics["1/bytes"]
    assert onnx_peak < 0.7 * torch_peak
    assert all(done.metrics[f"{i}/load_seconds"] > 0 for i in range(3))


def test_a_text_is_passed_over_once_with_its_own_lengths(classifier: Path, corpus: Path, teacher: Path) -> None:
    """Tokens per second count the text's tokens, cut at the model's positions, and no padding."""
    done = bench(quick(classifier, teacher, data=str(corpus), rows=7, batch_sizes=(3,)))
    texts = corpus.read_text().splitlines()[:7]
    tokens = sum(len(ids) for ids in AutoTokenizer.from_pretrained(teacher)(texts, truncation=True)["input_ids"])
    for i in (0, 1):
        per_token = done.metrics[f"{i}/cpu/fp32/b3/data/tokens_per_second"] / tokens
        assert per_token == pytest.approx(done.metrics[f"{i}/cpu/fp32/b3/data/throughput_sequences_per_second"] / 7)
    assert done.environment["padding"] == "to the longest text of a batch"


def test_record_and_plots_are_written_with_o(teacher: Path, tmp_path: Path) -> None:
    """The directory can be given to report; one in use is refused before anything is measured."""
    done = bench(quick(teacher, output=tmp_path / "card", batch_sizes=(1, 2)))
    assert read_biography(tmp_path / "card")[0].metrics == pytest.approx(done.metrics)
    assert len(list((tmp_path / "card").glob("latency-cpu-fp32-b[12]-l16.svg"))) == 2
    with pytest.raises(DistilkitError, match="choose another -o"):
        bench(quick(teacher, output=tmp_path / "card"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_models_are_measured(teacher: Path, corpus: Path) -> None:
    """On random tokens, and on texts of many lengths without a compilation for each."""
    options = {"compile": True, "rows": 12, "batch_sizes": (1,)}
    assert bench(quick(teacher, data=str(corpus), **options)).metrics["0/cpu/fp32/b1/data/latency_ms_p50"] > 0


def test_no_compiler_is_one_line(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a model is opened."""
    monkeypatch.setattr(torch, "compile", lambda _: pytest.fail)
    with pytest.raises(DistilkitError, match=r"--compile does not work here .*install a C\+\+ compiler"):
        bench(quick(teacher, compile=True))


def test_random_weights_need_a_config_alone(teacher: Path, tmp_path: Path) -> None:
    """The encoder that it describes is measured."""
    (tmp_path / "config.json").write_bytes((teacher / "config.json").read_bytes())
    found = bench(quick(tmp_path, random_weights=True)).metrics
    assert found["0/encoder_parameters"] == BERT_ENCODER + H * H + H  # with a pooler


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 5}, "--rows requires"),
        ({"task": "glue"}, "--task glue does not apply to bench"),
        ({"precision": "bf16", "runtimes": ("torch", "onnx")}, "--precision bf16 requires --runtimes torch"),
        ({"runtimes": ("tensorrt",)}, "--runtimes"),
        ({"compile": True, "runtimes": ("onnx",)}, "--compile requires --runtimes torch"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, object], message: str, teacher: Path) -> None:
    """The flag to change is named."""
    with pytest.raises(DistilkitError, match=message):
        bench(quick(teacher, **options))


@pytest.mark.gpu
def test_cuda_has_the_metrics_of_the_cpu(teacher: Path) -> None:
    """On a GPU the same metrics appear under cuda/, with memory above that of the weights; the record names the GPU."""
    done = bench(quick(teacher, devices=("cpu", "cuda")))
    assert {f"0/cuda/fp32/b2/l16/{name}" for name in SETTING_METRICS} <= set(done.metrics)
    assert done.metrics["0/cuda/fp32/b2/l16/peak_memory_bytes"] > 4 * BERT_ENCODER
    assert done.environment["gpu"]
