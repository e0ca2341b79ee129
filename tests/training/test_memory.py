"""Out-of-memory errors, and the memory of a machine."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distilkit.commands.distill import less_memory
from distilkit.distillation.presets import ON_BLOCKS
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.training import TrainOptions
from distilkit.training.memory import explain_out_of_memory, memory_suggestions, total_memory

CPU = torch.device("cpu")


def distill_options(**options: object) -> DistillOptions:
    """Return options of an objective on blocks, with its defaults filled in."""
    return DistillOptions(student="s", corpus="c", output=Path("o"), **ON_BLOCKS | options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you …"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_kind_of_out_of_memory_error_is_one_line(error: Exception, tmp_path: Path) -> None:
    """The line names the options to change and, if there is one, the checkpoint to resume from."""
    line = r"^out of memory: lower --batch-size \(now 32\)[^\n]*$"
    with (
        pytest.raises(DistilkitError, match=line) as bare,
        explain_out_of_memory(less_memory(distill_options()), tmp_path),
    ):
        raise error
    (tmp_path / "checkpoint-00000400").mkdir()
    again = "continue from checkpoint-00000400 with --resume"
    with pytest.raises(DistilkitError, match=again), explain_out_of_memory(less_memory(distill_options()), tmp_path):
        raise error
    assert "checkpoint" not in str(bare.value)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_other_errors_are_raised_unchanged(error: BaseException, tmp_path: Path) -> None:
    """Errors that are not about memory keep their traceback."""
    with pytest.raises(type(error)) as found, explain_out_of_memory(less_memory(distill_options()), tmp_path):
        raise error
    assert found.value is error


def test_only_options_that_help_are_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one, --ce-positions without a soft-target loss, and values that are already set are not suggested."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    batch, masked = "lower --batch-size (now 32) and raise --accumulate to match", "use --ce-positions masked"
    length = "lower --seq-length (now 128)"

    assert less_memory(distill_options()) == [batch, masked, length]
    assert less_memory(distill_options(batch_size=1, ce_positions="masked")) == [length]
    assert less_memory(distill_options(objective="mlm")) == [batch, length]
    assert less_memory(distill_options(objective="hidden", alpha_ce=1.0)) == [batch, masked, length]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "use --precision bf16" in less_memory(distill_options())
    assert "use --precision bf16" not in less_memory(distill_options(precision="bf16"))


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    """The memory of a container is its limit, if that is lower than the memory of the machine."""
    limit = tmp_path / "memory.max"
    machine = total_memory(CPU, limit)
    for text, expected in (("max\n", machine), ("1048576\n", 1048576), (f"{machine * 2}\n", machine)):
        limit.write_text(text, encoding="ascii")
        assert total_memory(CPU, limit) == expected


PROGRAM = """
import resource, sys
import distilkit.commands.distill
import transformers.models.auto.modeling_auto, transformers.models.bert.modeling_bert
import transformers.modeling_utils, huggingface_hub.hf_api
from distilkit.cli import app
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
app(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="requires Linux's /proc")
def test_a_real_out_of_memory_error(make_checkpoint: object, teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """With 256 MiB of free address space, a batch of 4,096 blocks gives one line and leaves no output directory."""
    student = make_checkpoint("bert", 2)  # type: ignore[operator]
    out = tmp_path / "out"
    words = ["distill", str(student), "--teacher", str(teacher), "--corpus", str(corpus), "-o", str(out)]
    more = ["--seq-length", "64", "--batch-size", "4096", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, *more],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("distilkit: error: out of memory: lower --batch-size (now 4096)")
    assert not out.exists()


def test_suggestions_of_plain_training_options() -> None:
    """Options without an objective give suggestions too."""
    assert memory_suggestions(TrainOptions())[0].startswith("lower --batch-size")
