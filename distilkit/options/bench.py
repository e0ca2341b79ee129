"""Options of `bench`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.init import ArchitectureOptions
from distilkit.options.spec import argument, option
from distilkit.options.tasks import TaskName
from distilkit.options.training import CompileOptions

Runtime = Literal["torch", "torch-int8", "onnx", "onnx-int8", "openvino", "executorch"]
FOR_PLANS = ("layers", "architecture", "vocabulary", "tokens", "budget")
FOR_MODELS = ("runtimes", "task", "data", "rows", "random_weights", "load")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PlanOptions(ArchitectureOptions, panel="Student"):
    """The possible students that `bench --plan` measures, and how it chooses one."""

    plan: bool = option(
        "Measure possible students of the teacher MODEL before you train one. They have random weights, so MODEL needs "
        "only a config.json.",
        False,
    )
    layers: tuple[int, ...] = option(
        "Numbers of layers of the students (default: a quarter, a third, half and two thirds of the teacher's).",
        (),
        min=1,
        max=10**6,
        metavar="N,N,…",
    )
    vocabulary: int | None = option("Tokens that the students keep (default: all).", None, min=1, max=2**40)
    tokens: int = option(
        "Training tokens: the plan estimates how long distill takes for this many.", 10**7, min=1, max=2**60
    )
    budget: tuple[str, ...] = option(
        "Limit such as 'latency_ms<=10' or 'bytes<=50e6': choose the largest student within all limits; exit code 3 if "
        "there is none. Repeatable.",
        (),
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BenchOptions(PlanOptions, CompileOptions, panel="Measurement"):
    """Measure parameters, size, latency, throughput, memory and energy."""

    usage = (
        "distilkit bench teacher-sst2 student-sst2",
        "distilkit bench teacher-sst2 student-sst2 --batch-sizes 1,8 --seq-lengths 128 --require 'speedup>=1.6'",
        "distilkit bench teacher-sst2 student-sst2 --runtimes torch,onnx,onnx-int8 --task sst2 --batch-sizes 1",
        "distilkit bench --plan bert-base-uncased --layers 4,6,8 --budget 'latency_ms<=10'",
    )

    models: tuple[str, ...] = argument("Checkpoints and exports; speed-ups are relative to the first.", "MODEL…")
    output: Path | None = option(
        "Directory to write the record and plots to.", None, short="-o", metavar="DIR", panel="Input and output"
    )
    runtimes: tuple[Runtime, ...] = option(
        "Runtimes to measure; each checkpoint is exported to a temporary directory.", ("torch",), metavar="R,R,…"
    )
    devices: tuple[Literal["cpu", "cuda", "mps"], ...] = option(
        "Devices to run on (default: all that are present; exports run on cpu).", (), metavar="D,D,…"
    )
    batch_sizes: tuple[int, ...] = option("Batch sizes.", (1, 8), metavar="N,N,…", min=1, max=2**20)
    seq_lengths: tuple[int, ...] = option("Sequence lengths in tokens.", (128,), metavar="N,N,…", min=1, max=2**20)
    task: TaskName | None = option(
        "Measure one pass over the validation rows of this task, instead of --seq-lengths.",
        None,
        replaces="seq_lengths",
    )
    data: str | None = option(
        "Folder with the rows of --task; without --task, a text to run the models on, one document at a time.",
        None,
        metavar="DIR|TEXT",
        is_path=True,
        replaces="seq_lengths",
    )
    rows: int | None = option("Rows of --task or --data to use (default: all).", None, min=2, max=2**40)
    random_weights: bool = option("Use random weights: a directory then needs only a config.json.", False)
    precision: Literal["fp32", "bf16", "fp16"] = option("Precision of the weights in torch.", "fp32")
    threads: int | None = option("CPU threads (default: torch's choice).", None, min=1, max=1024)
    runs: int = option("Timed runs per model, interleaved, after the warm-up.", 20, min=2, max=10**6)
    load: bool = option(
        "Also load each model in a new process, and measure the time to the first output and the peak memory.", False
    )
    require: tuple[str, ...] = option("Gate such as 'speedup>=1.6'; exit code 3 if it is not met. Repeatable.", ())

    def rules(self) -> Iterator[str]:
        if self.plan:
            yield from self.unused(FOR_MODELS, "has no effect with --plan: remove it")
            if len(self.models) > 1:
                yield f"--plan takes one teacher, not {len(self.models)} models: give one"
        else:
            yield from self.unused(FOR_PLANS, "requires --plan: give it, or remove this")
        if self.rows and not (self.task or self.data):
            yield "--rows requires --task or --data: give one, or remove it"
        if self.task in ("glue", "custom"):
            yield f"--task {self.task} does not apply to bench: give one task, or a text as --data"
        if self.runtimes != ("torch",):
            if self.precision != "fp32":
                yield f"--precision {self.precision} requires --runtimes torch: remove one of them"
            if self.compile:
                yield "--compile requires --runtimes torch: remove one of them"
