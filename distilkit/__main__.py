"""`distilkit`, and `python -m distilkit`."""

import sys

from distilkit import __version__
from distilkit.signals import close_stdout, exit_on_interrupt


def main() -> None:
    """Run the command line. The version alone is printed before typer is loaded."""
    exit_on_interrupt()
    try:
        if sys.argv[1:] == ["--version"]:
            print(f"distilkit {__version__}")
            return
        from distilkit.cli import app

        app(prog_name="distilkit")
    finally:
        if reason := close_stdout():
            print(f"distilkit: error: cannot write to standard output ({reason}): write it elsewhere", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
