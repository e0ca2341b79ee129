"""Options of `report` and `demo`."""

from collections.abc import Iterator
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
    """Run the whole pipeline offline and summarise the result.

    Without --teacher, the demo trains a small classifier of made-up reviews and then shrinks it. With --teacher, it
    shrinks that checkpoint: a sentence encoder, a masked LM or a classifier.
    """

    usage = ("distilkit demo", "distilkit demo -o demo", "distilkit demo --teacher bert-base-uncased --corpus text/")

    output: Path | None = option(
        "Directory to keep everything in (default: a new temporary directory).",
        None,
        short="-o",
        metavar="DIR",
    )
    teacher: str | None = option(
        "Checkpoint to shrink: a directory or a hub id (default: a small one that the demo trains).",
        None,
        metavar="MODEL",
        is_path=True,
    )
    corpus: str | None = option(
        "With --teacher: text to distil on. Same formats as for distill (default: the documentation that comes with "
        "Python).",
        None,
        metavar="TEXT",
        is_path=True,
    )
    steps: int = option("Updates of the distillation.", 250, min=1, max=2**40, panel="Training")

    def rules(self) -> Iterator[str]:
        if self.corpus and not self.teacher:
            yield "--corpus requires --teacher: give a --teacher, or remove --corpus"
