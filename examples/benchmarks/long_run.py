"""Sample a long run of `distill` or `finetune`, and plot its memory, descriptors, threads and speed.

    python examples/benchmarks/long_run.py OUT.svg SECONDS distill STUDENT --corpus TEXT -o RUN …

Starts the command and samples its processes every SECONDS until it ends: resident memory, open file descriptors,
threads and CPU time, and the tokens that RUN/train.jsonl has logged. Samples go to OUT.jsonl, the plot to OUT.svg.
The first tenth of the run is warm-up. After it the script compares the two ends of the run: the first and the last ten
minutes, or tenths of shorter runs. Speed is per second, and per second of CPU time, which other programs affect less.
Memory varies from sample to sample, so its median over ten minutes varies by several percent from one ten minutes to
the next. The script therefore also prints its trend: the Theil-Sen slope times the length of the run.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from matplotlib.figure import Figure
from scipy.stats import theilslopes

PANELS = {"memory": "memory (MiB)", "descriptors": "open descriptors", "threads": "threads", "speed": "tokens/CPU s"}
Sample = dict[str, float]


def main(picture: Path, seconds: float, words: list[str]) -> int:
    """Run the command, sample it, and write the samples and the plot."""
    out = Path(words[words.index("-o") + 1])
    process = subprocess.Popen([sys.executable, "-m", "distilkit", *words])
    started, samples = time.monotonic(), []
    with picture.with_suffix(".jsonl").open("w") as log:
        while process.poll() is None:
            if sample := take_sample(process.pid):
                samples.append({"seconds": time.monotonic() - started, "tokens": tokens_logged(out), **sample})
                log.write(json.dumps(samples[-1]) + "\n")
                log.flush()
            time.sleep(seconds)
    summarise(samples, picture)
    return process.returncode


def take_sample(pid: int) -> Sample:
    """Sum up what a process and its children use; {} once it has ended."""
    sample = dict.fromkeys(("memory", "descriptors", "threads", "cpu"), 0.0)
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with process.oneshot():
                times = process.cpu_times()
                sample["memory"] += process.memory_info().rss / 2**20
                sample["descriptors"] += process.num_fds()
                sample["threads"] += process.num_threads()
                sample["cpu"] += times.user + times.system
    except psutil.NoSuchProcess:
        return {}
    return sample


def tokens_logged(out: Path) -> int:
    """Return the tokens in the last whole line of the run's log."""
    try:
        lines = (out / "train.jsonl").read_text().splitlines(keepends=True)
    except OSError:
        return 0
    return int(json.loads(lines[-1])["tokens"]) if lines and lines[-1].endswith("\n") else 0


def summarise(samples: list[Sample], picture: Path) -> None:
    """Compare both ends of the run after its warm-up, print the comparison and draw the plot."""
    training = [sample for sample in samples if 0 < sample["tokens"] < samples[-1]["tokens"]]  # neither loads nor saves
    if len(training) < 20:
        print("too few samples: sample more often, or run longer", file=sys.stderr)
        return
    warm = training[len(training) // 10 :]
    span = min(600.0, (warm[-1]["seconds"] - warm[0]["seconds"]) / 10)
    first = [sample for sample in warm if sample["seconds"] <= warm[0]["seconds"] + span]
    last = [sample for sample in warm if sample["seconds"] >= warm[-1]["seconds"] - span]
    print(f"{(samples[-1]['seconds']) / 60:.0f} min, {len(samples)} samples, ends of {span / 60:.1f} min")
    for name in ("memory", "descriptors", "threads"):
        ends = [median(sample[name] for sample in end) for end in (first, last)]
        print(f"{name}: {ends[0]:.1f} at first, {ends[1]:.1f} at last, ratio {ends[1] / ends[0]:.4f}")
    change, low, high = trend(warm, "memory")
    print(f"memory, trend over the run: {change:+.1%} ({low:+.1%} to {high:+.1%})")
    for name, clock in (("tokens per second", "seconds"), ("tokens per CPU second", "cpu")):
        speeds = [rate(end[0], end[-1], clock) for end in (first, last)]
        print(f"{name}: {speeds[0]:.0f} at first, {speeds[1]:.0f} at last, ratio {speeds[1] / speeds[0]:.3f}")
    draw(training, picture)


def trend(samples: list[Sample], name: str) -> tuple[float, float, float]:
    """Return by what share of its median a quantity rises from the first to the last sample, with a 95 % interval."""
    values = [sample[name] for sample in samples]
    slopes = theilslopes(values, [sample["seconds"] for sample in samples])
    scale = (samples[-1]["seconds"] - samples[0]["seconds"]) / median(values)
    return slopes.slope * scale, slopes.low_slope * scale, slopes.high_slope * scale


def rate(begin: Sample, end: Sample, clock: str) -> float:
    """Return the tokens per second between two samples."""
    return (end["tokens"] - begin["tokens"]) / (end[clock] - begin[clock])


def draw(samples: list[Sample], picture: Path) -> None:
    """Draw a panel for each quantity over minutes. Each point of the speed is a mean over a fortieth of the run."""
    minutes = [sample["seconds"] / 60 for sample in samples]
    step = max(1, len(samples) // 40)
    series: dict[str, tuple[Any, Any]] = {
        name: (minutes, [sample[name] for sample in samples]) for name in ("memory", "descriptors", "threads")
    }
    pairs = list(zip(samples[::step], samples[step::step], strict=False))
    series["speed"] = ([end["seconds"] / 60 for _, end in pairs], [rate(*pair, "cpu") for pair in pairs])
    figure = Figure(figsize=(9, 5), layout="constrained")
    for number, (name, label) in enumerate(PANELS.items(), 1):
        axes = figure.add_subplot(2, 2, number, title=label, xlabel="minutes")
        axes.plot(*series[name])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) < 4 or "-o" not in sys.argv:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
