"""Devices and processes: memory of the CPU allocator, and runs with `accelerate launch`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from distilkit.commands.distill import distill
from distilkit.commands.finetune import finetune
from distilkit.commands.init import init
from distilkit.options.distill import DistillOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.training.devices import allocator, keep_freed_memory

# After a warm-up, allocate and free 64 MB eight times; print the number of new pages from the kernel.
FAULTS = """
import resource, sys
import torch
if sys.argv[1] == "kept":
    from distilkit.training.devices import keep_freed_memory
    assert keep_freed_memory()
for _ in range(4):
    kept = [torch.ones(2**24), torch.ones(2**24)]
    del kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


# Free 256 MB below a tensor that stays; print the resident megabytes before and after they are returned.
RETURNED = """
import psutil
import torch
from distilkit.training.devices import keep_freed_memory, return_freed_memory
assert keep_freed_memory()
kept = [torch.ones(2**20) for _ in range(65)]
del kept[:64]
def resident():
    return psutil.Process().memory_info().rss >> 20
before = resident()
return_freed_memory()
print(before, resident())
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    """Successive large tensors mostly reuse pages of the process."""
    fewest = min(faults("kept") for _ in range(3))  # a busy system may reclaim pages
    assert 4 * fewest < faults("as it comes")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_returned() -> None:
    """Of 256 MB that lie free in the heap, below a block that is in use, nearly all go back to the system."""
    command = [sys.executable, "-c", RETURNED]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout
    before, after = map(int, printed.split())
    assert before - after > 200


def test_settings_in_the_environment_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the environment sets MALLOC_… variables, nothing is changed."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")

    assert keep_freed_memory() is False
    assert allocator("malloc_trim") is None


RUN = {"steps": 50, "seq_length": 16, "lr": 1e-3, "evaluate_every": 25, "checkpoint_every": 20}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """Make a two-layer student without dropout, since processes use different dropout masks."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    output = tmp_path_factory.mktemp("processes") / "student"
    init(InitOptions(teacher=str(make_checkpoint("bert", 4, **still)), output=output))
    return output


def start(processes: int, *words: object, sharded: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += [str(Path(__file__).parents[1] / "sharded.py")] if sharded else ["-m", "distilkit"]
    environment = os.environ | {"SHARDED": sharded}
    return subprocess.Popen(
        [*command, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def launch(processes: int, *words: object, sharded: str = "") -> subprocess.CompletedProcess[str]:
    process = start(processes, *words, sharded=sharded)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def losses(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "train.jsonl").read_text().splitlines()]


SHARDED = ["", "FSDP", "DeepSpeed"]


@pytest.mark.slow
@pytest.mark.parametrize("sharded", SHARDED)
def test_two_processes_equal_one_with_twice_the_batch(
    student: Path, corpus: Path, tmp_path: Path, sharded: str
) -> None:
    """Over 50 updates, losses and weights agree to 1e-4; there is one set of files and one document on stdout.

    A run that SIGTERM interrupts and --resume continues has exactly the same weights.
    """
    if sharded == "DeepSpeed":
        pytest.importorskip("deepspeed")
    flags = [word for name, value in RUN.items() for word in (f"--{name.replace('_', '-')}", value)]
    command = ["distill", student, "--corpus", corpus, "--batch-size", 4, "--accumulate", 2, *flags, "--json"]
    done = launch(2, *command, "-o", tmp_path / "two", sharded=sharded)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["updates"] == 50
    distill(DistillOptions(student=str(student), corpus=str(corpus), output=tmp_path / "one", batch_size=16, **RUN))

    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for mine, other in zip(two, one, strict=True):
        for name in ("loss", "ce", "mlm", "cos", "heldout_loss", "tokens"):
            assert mine.get(name) == pytest.approx(other.get(name), abs=1e-4), (name, mine["step"])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    mine, other = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-4, msg=name)

    command += ["-o", tmp_path / "broken", "--log-every", 1]
    interrupted = start(2, *command, sharded=sharded)
    while not (tmp_path / "broken" / "train.jsonl").exists() or len(losses(tmp_path / "broken")) < 5:
        assert interrupted.poll() is None, interrupted.communicate()[1]
        time.sleep(0.02)
    interrupted.send_signal(signal.SIGTERM)
    _, stderr = interrupted.communicate(timeout=60)
    assert list((tmp_path / "broken").glob("checkpoint-*[0-9]")), stderr
    done = launch(2, *command, "--resume", sharded=sharded)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in losses(tmp_path / "broken")] == [line["step"] for line in two]
    again = load_file(tmp_path / "broken" / "model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in mine.items())


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_if_one_of_two_processes_is_killed_the_other_ends(
    student: Path, corpus: Path, tmp_path: Path, victim: int
) -> None:
    """It ends within a minute, with an exit code that is not 0, and --resume finishes the run."""
    out = tmp_path / "out"
    flags = ["--batch-size", 4, "--seq-length", 16, "--log-every", 1, "--checkpoint-every", 5, "--steps", 200]
    command = ["distill", student, "--corpus", corpus, *flags, "-o", out]
    running = start(2, *command)
    while not list(out.glob("checkpoint-*[0-9]")):
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.02)
    workers = [process for process in psutil.Process(running.pid).children() if "distilkit" in process.cmdline()]
    workers.sort(key=lambda process: int(process.environ()["RANK"]))
    workers[victim].kill()
    running.communicate(timeout=60)
    assert running.returncode != 0
    assert not psutil.wait_procs(workers, timeout=1)[1]

    done = launch(2, *command, "--resume")
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in losses(out) if "loss" in line] == list(range(1, 201))


@pytest.mark.slow
@pytest.mark.parametrize("sharded", SHARDED)
def test_two_processes_fine_tune_as_one_with_twice_the_batch(
    make_checkpoint: Callable[..., Path], prose: list[str], tmp_path: Path, sharded: str
) -> None:
    """Two seeds give the same scores and weights; only one process writes files and messages."""
    if sharded == "DeepSpeed":
        pytest.importorskip("deepspeed")
    data, rows = tmp_path / "rows", [{"text": line, "label": len(line) % 2} for line in prose[:40]]
    data.mkdir()
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings: dict[str, Any] = {"batch_size": 4, "epochs": 2.0, "lr": 1e-3, "seeds": 2, "max_length": 16}
    settings |= {"model": str(make_checkpoint("bert", 2, **still)), "task": "custom", "text": ("text",)}
    settings |= {"label": "label", "data": data}
    done = launch(
        2, "finetune", settings["model"], "--task", "custom", "--text", "text", "--label", "label", "--data", data,
        "--batch-size", 4, "--epochs", 2, "--lr", 1e-3, "--seeds", 2, "--max-length", 16, "--json",
        "-o", tmp_path / "two", sharded=sharded,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one = finetune(FinetuneOptions(**settings, accumulate=2, output=tmp_path / "one"))

    scores = json.loads(done.stdout)["metrics"]
    assert scores["custom/accuracy"] == one.metrics["custom/accuracy"]
    assert scores["updates"] == one.metrics["updates"] == 10
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    mine, other = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-4, msg=name)
