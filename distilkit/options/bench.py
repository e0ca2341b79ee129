"""Options of `bench`."""

from dataclasses import dataclass
from typing import Literal

from distilkit.options.declare import argument, option
from distilkit.options.training import CommonOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BenchOptions(CommonOptions):
    """Measure parameters, size, latency, throughput and memory of checkpoints."""

    models: tuple[str, ...] = argument("Checkpoints; the speed-up is against the first.", "MODEL…")
    devices: tuple[str, ...] = option("Devices to run on [default: cpu, and cuda where present].", (), metavar="D,D,…")
    batch_sizes: tuple[int, ...] = option("Batch sizes.", (1, 8), metavar="N,N,…")
    seq_lengths: tuple[int, ...] = option("Sequence lengths in tokens.", (128,), metavar="N,N,…")
    precision: Literal["fp32", "bf16", "fp16"] = option("Precision of the weights.", "fp32")
    threads: int | None = option("CPU threads [default: torch's].", None, min=1)
    runs: int = option("Timed runs of each model, in turn, after the warm-up.", 20, min=2)
    require: tuple[str, ...] = option("Gate like 'speedup>=1.6'; exit 3 where it is not met.", ())
