"""Run a function in a new Python process, where nothing is loaded yet."""

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import distilkit
from distilkit.errors import DistilkitError


def call_in_new_process(function: str, *arguments: Any) -> Any:
    """Call `module:function` with JSON values in a new process; return its result, JSON values too.

    Raises DistilkitError if the function does, or if the process ends without a result.
    """
    source = str(Path(distilkit.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        command = [sys.executable, "-m", "distilkit.runtimes.fresh", function, json.dumps(arguments), str(result)]
        done = subprocess.run(  # noqa: S603 - this package's own module
            command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
        if not result.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise DistilkitError(f"a new process failed ({last[:200]}): please report this")
        found = json.loads(result.read_text(encoding="utf-8"))
    if "error" in found:
        raise DistilkitError(found["error"])
    return found["value"]


def main(function: str, arguments: str, result: str) -> None:
    """Call the function and write its result, or the text of its DistilkitError."""
    module, _, name = function.partition(":")
    try:
        found = {"value": getattr(import_module(module), name)(*json.loads(arguments))}
    except DistilkitError as error:
        found = {"error": str(error)}
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
