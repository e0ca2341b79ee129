"""The table of scores by class, and a report's columns: models by name, own rows by their file."""

from pathlib import Path

from records import write_model

from distilkit.commands.report import report
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.report import ReportOptions
from distilkit.record import record
from distilkit.reporting.class_table import classes
from distilkit.reporting.models import read
from distilkit.reporting.tables import Cell
from distilkit.screen import tabulate

SCORES = {
    "custom/accuracy": 0.75,
    **{f"custom/{metric}/a": 0.5 for metric in ("precision", "recall", "f1")},
    **{f"custom/{metric}/b c": 1.0 for metric in ("precision", "recall", "f1")},
    "custom/f1/a/count": 2.0,
    "custom/f1/b c/count": 2.0,
    "custom/confusion/a/a": 1.0,
    "custom/confusion/a/b c": 1.0,
    "custom/confusion/b c/b c": 2.0,
}


def write(root: Path) -> Path:
    tuned = FinetuneOptions(model="some/model", output=root / "student", task="custom", data=root / "mails.csv")
    write_model(root / "student", 1000, [record("finetune", tuned, SCORES)])
    return root / "student"


def test_each_class_has_its_scores_and_its_commonest_mistake(tmp_path: Path) -> None:
    """A class without mistakes has an empty last cell; class scores are in no other table."""
    table = classes(read([str(write(tmp_path))]))
    heads = ["Model", "Class", "Precision", "Recall", "F1", "Rows", "Mistaken for"]
    assert [head.text for head in table.heads] == heads
    assert table.rows == [
        [*map(Cell, ("student", "a", "50.0%", "50.0%", "50.0%", "2")), Cell("b c", "1")],
        [*map(Cell, ("student", "b c", "100.0%", "100.0%", "100.0%", "2", ""))],
    ]


def test_names_of_models_and_rows_are_shown(tmp_path: Path) -> None:
    """On the page and on the terminal, instead of numbers and `custom`."""
    done = report(ReportOptions(directories=(str(write(tmp_path)),), output=tmp_path / "report"))
    page = (tmp_path / "report/report.md").read_text()
    assert "mails.csv (accuracy)" in page
    assert "custom" not in page.partition("## How")[0].replace("frontier-custom", "").replace("curve-custom", "")
    (header, _), *_ = tabulate(done)
    assert header == ["metric", "student"]
    assert done.environment["rows"] == "mails.csv"
