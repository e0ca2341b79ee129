"""`distilkit`, and `python -m distilkit`."""

import sys

from distilkit import __version__


def main() -> None:
    """Run the command line. The version alone is printed before typer is loaded."""
    if sys.argv[1:] == ["--version"]:
        print(f"distilkit {__version__}")
        return
    from distilkit.cli import app

    app(prog_name="distilkit")


if __name__ == "__main__":
    main()
