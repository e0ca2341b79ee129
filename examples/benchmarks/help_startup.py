"""Time `distilkit --help` against an empty Typer app's, in turn, as whole processes; print medians and ratio.

python examples/benchmarks/help_startup.py
"""

import json
import statistics
import subprocess
import sys
import time

EMPTY = "import typer; app = typer.Typer(rich_markup_mode=None); app.callback()(lambda: None); app()"
COMMANDS = {
    "empty_typer_app": [sys.executable, "-c", EMPTY, "--help"],
    "distilkit": [sys.executable, "-m", "distilkit", "--help"],
}
RUNS = 15


def seconds(command: list[str]) -> float:
    """Run a command to its end and return how long it took."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Warm up, then alternate."""
    for command in COMMANDS.values():
        seconds(command)
    times = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    print(json.dumps({**medians, "ratio": statistics.median(ratios), "runs": RUNS}, indent=2))


main()
