"""Options of `bench`."""

from dataclasses import dataclass
from typing import Literal

from distilkit.options.spec import argument, option
from distilkit.options.training import CommonOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BenchOptions(CommonOptions, panel="Measurement"):
    """Measure parameters, size, latency, throughput and memory."""

    usage = (
        "distilkit bench teacher-sst2 student-sst2",
        "distilkit bench teacher-sst2 student-sst2 --batch-sizes 1,8 --seq-lengths 128 --require 'speedup>=1.6'",
    )

    models: tuple[str, ...] = argument("Checkpoints; speed-ups are relative to the first.", "MODEL…")
    devices: tuple[Literal["cpu", "cuda"], ...] = option(
        "Devices to run on (default: cpu, and cuda if present).", (), metavar="D,D,…"
    )
    batch_sizes: tuple[int, ...] = option("Batch sizes.", (1, 8), metavar="N,N,…", min=1, max=2**20)
    seq_lengths: tuple[int, ...] = option("Sequence lengths in tokens.", (128,), metavar="N,N,…", min=1, max=2**20)
    precision: Literal["fp32", "bf16", "fp16"] = option("Precision of the weights.", "fp32")
    threads: int | None = option("CPU threads (default: torch's choice).", None, min=1, max=1024)
    runs: int = option("Timed runs per model, interleaved, after the warm-up.", 20, min=2, max=10**6)
    require: tuple[str, ...] = option("Gate such as 'speedup>=1.6'; exit code 3 if it is not met. Repeatable.", ())
