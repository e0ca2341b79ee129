"""Options of `report` and `demo`."""

from dataclasses import dataclass
from pathlib import Path

from distilkit.options.declare import argument, option
from distilkit.options.training import CommonOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReportOptions(CommonOptions):
    """Make an HTML page, Markdown tables, plots and model cards from the records of checkpoints."""

    directories: tuple[str, ...] = argument("Directories that distilkit wrote, or that hold some.", "DIR…")
    output: Path = option("Directory to write report.html, report.md and the plots to.", short="-o", metavar="DIR")
    card: bool = option("Write a model card into each checkpoint too, as its README.md.", False)
    force: bool = option("With --card, replace a README.md that is not as distilkit wrote it.", False)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DemoOptions(CommonOptions):
    """Run the whole chain, offline, on the documentation that comes with Python."""

    output: Path | None = option(
        "Directory to keep everything in [default: a new temporary one].", None, short="-o", metavar="DIR"
    )
