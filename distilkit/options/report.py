"""Options of `report` and `demo`."""

from dataclasses import dataclass
from pathlib import Path

from distilkit.options.spec import argument, option
from distilkit.options.training import CommonOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReportOptions(CommonOptions):
    """Make an HTML page, Markdown tables, plots and model cards."""

    usage = (
        "distilkit report student-sst2 teacher-sst2 -o report",
        "distilkit report student-sst2 -o report-with-card --card",
    )

    directories: tuple[str, ...] = argument("Directories that distilkit wrote, or folders of them.", "DIR…")
    output: Path = option("Directory to write report.html, report.md and the plots to.", short="-o", metavar="DIR")
    card: bool = option("Also write a model card into each checkpoint, as README.md.", False)
    force: bool = option("With --card: overwrite README.md files that distilkit did not write.", False)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DemoOptions(CommonOptions):
    """Run the whole chain offline, on the documentation that comes with Python."""

    usage = ("distilkit demo", "distilkit demo -o demo")

    output: Path | None = option(
        "Directory to keep everything in (default: a new temporary directory).",
        None,
        short="-o",
        metavar="DIR",
    )
