"""--help, recipes and --version are quick: they load no library that computes."""

import subprocess
import sys

import pytest

from distilkit.options.recipes import COMMANDS

HEAVY = ["torch", "transformers", "accelerate", "datasets", "evaluate", "numpy", "sklearn", "scipy", "matplotlib"]
PROGRAM = """
import sys
from distilkit.cli import app
try:
    app(sys.argv[1:], prog_name="distilkit")
except SystemExit as ended:
    assert not ended.code, ended.code
print([name for name in {heavy} if name in sys.modules])
"""


def run(*arguments: str) -> list[str]:
    """Run the app in a fresh interpreter; returns the lines of its stdout, the last a list of what it loaded."""
    command = [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["distill", "--help"], ["recipes"], ["recipes", "smoke"], ["--version"]], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """No library that computes is imported, and the command prints something."""
    *said, loaded = run(*arguments)
    assert loaded == "[]"
    assert said


def test_help_lists_every_command() -> None:
    """A command that is declared is registered."""
    text = "\n".join(run("--help"))
    assert all(f" {name} " in text for name in [*COMMANDS, "recipes"])
