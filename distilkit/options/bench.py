"""Options of `bench`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from distilkit.options.spec import argument, option
from distilkit.options.tasks import TaskName
from distilkit.options.training import CommonOptions

Runtime = Literal["torch", "torch-int8", "onnx", "onnx-int8", "openvino"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BenchOptions(CommonOptions, panel="Measurement"):
    """Measure parameters, size, latency, throughput and memory."""

    usage = (
        "distilkit bench teacher-sst2 student-sst2",
        "distilkit bench teacher-sst2 student-sst2 --batch-sizes 1,8 --seq-lengths 128 --require 'speedup>=1.6'",
        "distilkit bench teacher-sst2 student-sst2 --runtimes torch,onnx,onnx-int8 --task sst2 --batch-sizes 1",
    )

    models: tuple[str, ...] = argument("Checkpoints and exports; speed-ups are relative to the first.", "MODEL…")
    runtimes: tuple[Runtime, ...] = option(
        "Runtimes to measure each checkpoint in; it is exported to a temporary directory.", ("torch",), metavar="R,R,…"
    )
    devices: tuple[Literal["cpu", "cuda"], ...] = option(
        "Devices to run on (default: cpu, and cuda if present; exports run on cpu).", (), metavar="D,D,…"
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
    random_weights: bool = option("Use random weights: a directory then needs a config.json only.", False)
    precision: Literal["fp32", "bf16", "fp16"] = option("Precision of the weights in torch.", "fp32")
    threads: int | None = option("CPU threads (default: torch's choice).", None, min=1, max=1024)
    runs: int = option("Timed runs per model, interleaved, after the warm-up.", 20, min=2, max=10**6)
    load: bool = option("Also load each model in a new process, and measure the time and the peak memory.", False)
    require: tuple[str, ...] = option("Gate such as 'speedup>=1.6'; exit code 3 if it is not met. Repeatable.", ())

    def rules(self) -> Iterator[str]:
        if self.rows and not (self.task or self.data):
            yield "--rows requires --task or --data: give one, or remove it"
        if self.task in ("glue", "custom"):
            yield f"--task {self.task} names no rows: give one task, or a text as --data"
        if self.precision != "fp32" and self.runtimes != ("torch",):
            yield f"--precision {self.precision} requires --runtimes torch: remove one of them"
