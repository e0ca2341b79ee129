"""Time `distilkit --help` against an empty Typer app's, in turn: processor seconds, medians and ratio.

python examples/benchmarks/help_startup.py
"""

import json
import resource
import statistics
import subprocess
import sys

EMPTY = "import typer; app = typer.Typer({}); app.callback()(lambda: None); app()"
OURS = "from distilkit.cli import app; app()"  # what the installed script holds
PROGRAMS = {
    "empty_typer_app": EMPTY.format(""),
    "empty_without_rich": EMPTY.format("rich_markup_mode=None"),
    "distilkit": OURS,
}
COMMANDS = {name: [sys.executable, "-c", program, "--help"] for name, program in PROGRAMS.items()}
RUNS = 25


def seconds(command: list[str]) -> float:
    """Run a command to its end and return the processor time that it took, which other programs disturb little."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Warm up, then alternate."""
    for command in COMMANDS.values():
        seconds(command)
    times = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        f"ratio_to_{name}": statistics.median(b / a for a, b in zip(times[name], times["distilkit"], strict=True))
        for name in COMMANDS
        if name != "distilkit"
    }
    print(json.dumps({**medians, **ratios, "runs": RUNS}, indent=2))


main()
