"""report: its files, its record, and the directories that it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.commands.report import report
from distilkit.errors import DistilkitError
from distilkit.options.init import InitOptions
from distilkit.options.report import ReportOptions
from distilkit.record import Record, read_biography, record, write_biography


def run(out: Path, *directories: Path, **options: bool) -> Record:
    """Report directories into `out`."""
    return report(ReportOptions(directories=tuple(map(str, directories)), output=out, **options))


def test_the_record_has_every_model_s_metrics_by_position(chain: Path, tmp_path: Path) -> None:
    """Positions follow the order of the directories. Values are those of eval.json and bench.json."""
    done = run(tmp_path / "out", *(chain / name for name in ("teacher-tuned", "student-tuned", "control-tuned")), chain)
    assert done.metrics["1/retention/mrpc/low"] == 0.91
    assert done.metrics["2/mrpc/f1"] == 0.792
    assert done.metrics["1/speedup"] == 1.6


def test_a_report_has_the_page_its_markdown_and_two_files_a_plot(chain: Path, tmp_path: Path) -> None:
    """The Markdown has the headline, tables, plots, missing steps and commands."""
    run(tmp_path / "out", chain)
    plots = ("retention", "frontier-mrpc", "learning-curve", "learning-curve-ce")
    files = {f"{name}.{kind}" for name in plots for kind in ("png", "svg")}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == files | {"distilkit.json", "report.html", "report.md"}
    text = (tmp_path / "out/report.md").read_text()
    assert text.startswith("# student-tuned\n\n2 of the 4 layers of some/teacher; distilled on words.txt")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Models", "## Scores", "## Speed", "## Plots", "## What is missing", "## How it was made",
    ]  # fmt: skip
    assert "distilkit init some/teacher -o extracted --seed 7\n" in text


def test_a_report_of_an_init_alone_says_what_is_missing(tmp_path: Path) -> None:
    """The sizes are those of the record. There are no plots, and the missing commands are suggested."""
    made = InitOptions(teacher="some/teacher", output=tmp_path / "a")
    (tmp_path / "a").mkdir()
    sizes = {"teacher/parameters": 4e6, "student/parameters": 3e6}
    write_biography(tmp_path / "a", [record("init", made, sizes)])
    run(tmp_path / "out", tmp_path / "a")
    text = (tmp_path / "out/report.md").read_text()
    assert "**25%** smaller: 3.0M of 4.0M parameters" in text
    assert "No bench record" in text
    assert "distilkit bench some/teacher a" in text
    assert "distilkit finetune a --task NAME -o a-NAME" in text
    assert "![" not in text
    assert not list((tmp_path / "out").glob("*.png"))


def test_directories_without_anything_are_refused(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty directory, a missing directory and one whose file is not a record are errors that name them."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for directory in (empty, tmp_path / "absent"):
        with pytest.raises(DistilkitError, match=str(directory)):
            run(tmp_path / "out", chain, directory)
    (empty / "bench.json").write_text("[1, 2]")
    with pytest.raises(DistilkitError, match=str(empty)):
        run(tmp_path / "out", empty)
    assert "bench.json' is not a record of distilkit: it is left out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_used_output_directory_is_refused(chain: Path, tmp_path: Path) -> None:
    """An earlier report or other files are not overwritten."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(DistilkitError, match="not empty"):
        run(tmp_path / "out", chain)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_checkpoint_without_records_has_its_size(
    make_checkpoint: Callable[..., Path], chain: Path, tmp_path: Path
) -> None:
    """Beside others, its size is counted from its weights; alone, there is nothing to report."""
    directory = make_checkpoint("bert", 2)
    with pytest.raises(DistilkitError, match="no records in"):
        run(tmp_path / "out", directory)
    done = run(tmp_path / "out", directory, chain)
    assert done.metrics["0/bytes"] == (directory / "model.safetensors").stat().st_size
    assert [entry.command for entry in read_biography(tmp_path / "out")] == ["report"]


def test_the_command_line_takes_the_options(chain: Path, tmp_path: Path) -> None:
    """--card writes the model cards, --json prints the record."""
    result = CliRunner().invoke(app, ["report", str(chain), "-o", str(tmp_path / "out"), "--card", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["command"] == "report"
    assert (chain / "student-tuned/README.md").is_file()
    again = CliRunner().invoke(app, ["report", str(tmp_path / "absent"), "-o", str(tmp_path / "out2")])
    assert again.exit_code == 1
