"""`distilkit`, and `python -m distilkit`."""

import sys

from distilkit import __version__
from distilkit.signals import close_stdout, exit_on_interrupt


def main() -> None:
    """Run the command line, and check that what it printed was written."""
    exit_on_interrupt()
    code: int | str | None = 0
    reason = ""
    try:
        run()
    except SystemExit as done:
        code = done.code
    except OSError as error:  # of an unbuffered stdout; commands turn all others into one line
        reason = error.strerror or str(error)
    reason = close_stdout() or reason
    if reason and not code:
        print(f"distilkit: error: cannot write to standard output ({reason}): write it elsewhere", file=sys.stderr)
        code = 1
    if code:
        sys.exit(code)


def run() -> None:
    """Run the command line. The version alone is printed before typer is loaded."""
    if sys.argv[1:] == ["--version"]:
        print(f"distilkit {__version__}")
        return
    from distilkit.cli import app

    app(prog_name="distilkit")


if __name__ == "__main__":
    main()
