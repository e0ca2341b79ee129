"""Time a model with bench's loop, with one written by hand, and with optimum-benchmark's, side by side in one process.

    python examples/benchmarks/bench_overhead.py MODEL [ROUNDS] [LENGTH]

Batch 1, fp32, on the CPU. The loops take turns, PASSES passes at a time, in an order that changes from round to round.
A ratio is one loop's median latency over that of the hand-written loop in the same round. The hand-written loop opens
the model with transformers' AutoModel, and bench opens it itself. optimum-benchmark's tracker, as its inference
scenario uses it, is timed if it is installed. The harness's overhead is the share of bench's reported latency that is
spent outside the model's forward pass.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from distilkit.benchmark.contenders import open_contenders
from distilkit.benchmark.inputs import random_inputs
from distilkit.benchmark.timing import time_interleaved
from distilkit.options.bench import BenchOptions
from distilkit.record import BenchSetting

PASSES = 10


class Stopwatch(nn.Module):
    """A model that notes the seconds inside of its own forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seconds = model, list[float]()

    def forward(self, **inputs: Tensor) -> Any:
        """Run the model."""
        started = time.perf_counter()
        output = self.model(**inputs)
        self.seconds.append(time.perf_counter() - started)
        return output


def time_by_hand(model: nn.Module, inputs: dict[str, Tensor]) -> list[float]:
    """Time passes as everybody does."""
    seconds = []
    with torch.inference_mode():
        for _ in range(3):
            model(**inputs)
        for _ in range(PASSES):
            started = time.perf_counter()
            model(**inputs)
            seconds.append(time.perf_counter() - started)
    return seconds


def time_with_bench(model: nn.Module, inputs: dict[str, Tensor], setting: BenchSetting) -> list[float]:
    """Time passes with the loop of `distilkit bench`."""
    found: list[float] = time_interleaved([model], [(inputs,)] * PASSES, lambda *_: None, setting)[0].tolist()
    return found


def time_with_optimum(model: nn.Module, inputs: dict[str, Tensor]) -> list[float]:
    """Time passes with optimum-benchmark's tracker, as its inference scenario does."""
    from optimum_benchmark.trackers.latency import LatencySessionTracker

    tracker = LatencySessionTracker("cpu", "pytorch")
    with torch.inference_mode():
        for _ in range(3):
            model(**inputs)
        with tracker.session():
            while tracker.count() < PASSES:
                with tracker.track():
                    model(**inputs)
    return list(tracker.get_latency().values)


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, and the range that the middle half of the values lies in."""
    low, _, high = statistics.quantiles(values, n=4)
    return {"median": round(statistics.median(values), 4), "from": round(low, 4), "to": round(high, 4)}


def main(name: str, rounds: int, length: int) -> None:
    """Take turns, and print medians, ratios and the overhead."""
    options = BenchOptions(models=(name,), devices=("cpu",))
    setting = BenchSetting("cpu", "fp32", 1, length)
    with ExitStack() as stack:
        (contender,) = open_contenders(options, stack)
        (inputs,) = random_inputs([contender], setting, seed=0)
        by_hand, inside = AutoModel.from_pretrained(name).eval(), Stopwatch(contender.timed)
        ways: dict[str, Callable[[], list[float]]] = {
            "by hand": lambda: time_by_hand(by_hand, inputs),
            "bench": lambda: time_with_bench(contender.timed, inputs, setting),
        }
        try:
            time_with_optimum(by_hand, inputs)
            ways["optimum-benchmark"] = lambda: time_with_optimum(by_hand, inputs)
        except ImportError:
            print("optimum-benchmark is not installed, so it is left out", file=sys.stderr)
        medians: dict[str, list[float]] = {way: [] for way in ways}
        overheads: list[float] = []
        for number in range(rounds):
            order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
            for way in order:
                medians[way].append(statistics.median(ways[way]()))
            outside = time_with_bench(inside, inputs, setting)
            overheads += [1 - own / whole for own, whole in zip(inside.seconds[-PASSES:], outside, strict=True)]
    first = medians["by hand"]
    summary: dict[str, Any] = {"rounds": rounds, "passes": PASSES, "tokens": length, "threads": torch.get_num_threads()}
    for way, values in medians.items():
        ratios = [value / by for value, by in zip(values, first, strict=True)]
        summary[way] = {"latency_ms": spread([1e3 * value for value in values]), "ratio": spread(ratios)}
    print(json.dumps(summary | {"overhead_of_bench": spread(overheads)}, indent=2))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(__doc__)
    numbers = [int(word) for word in sys.argv[2:]]
    main(sys.argv[1], *[*numbers, *(60, 128)[len(numbers) :]])
