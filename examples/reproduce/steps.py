"""Steps of a reproduction: run distilkit commands once each, and write tables."""

import shlex
import subprocess
import sys
from pathlib import Path


def made(folder: Path, *command: str) -> str:
    """Run a command that writes a folder, unless the folder is finished; return its name."""
    if not (folder / "distilkit.json").is_file():
        distilkit(*command, "-o", str(folder))
    return str(folder)


def distilkit(*command: str) -> str:
    """Run one distilkit command and return what it prints; stop if it fails."""
    print("$", shlex.join(["distilkit", *command]), file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", "distilkit", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def markdown(header: list[str], rows: list[list[str | float | None]]) -> str:
    cells = [["" if cell is None else cell if isinstance(cell, str) else f"{cell:.2f}" for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["--"] * len(header), *cells]) + "\n"
