"""report: the table against the files it was made from, the picture against the lines of train.jsonl."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from transformers import AutoModelForMaskedLM
from typer.testing import CliRunner

from distilkit import student
from distilkit.cli import app
from distilkit.config import DistillConfig, InitConfig, ReportConfig
from distilkit.errors import DistilkitError
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.report import command_line, labels, plot_curves, report

LINES = [
    {"step": 1, "loss": 5.0, "tokens": 100},
    {"step": 2, "loss": 4.0, "tokens": 200},
    {"step": 2, "tokens": 200, "heldout_loss": 4.5},
    {"step": 3, "loss": 3.5, "tokens": 300},
    {"step": 3, "tokens": 300, "heldout_loss": 4.25},
]


@pytest.fixture
def distilled(make_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint with an ancestor, a distillation and its curve."""
    directory = make_checkpoint("bert", 2)
    made = InitConfig(teacher="some/teacher", output=directory)
    trained = DistillConfig(student="some/student", corpus="text", output=directory, lr=1e-3)
    first = record("init", made, {"max_difference": 0.0, "heldout_loss": 9.0})
    write_biography(directory, [first, record("distill", trained, {"heldout_loss": 4.25, "loss": 3.5})])
    (directory / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return directory


@pytest.fixture
def plain(make_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint that distilkit didn't write."""
    return make_checkpoint("bert", 4)


def table(out: Path) -> list[dict[str, str]]:
    """Read the report's table back."""
    lines = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in body]


def run(out: Path, *directories: Path) -> Record:
    return report(ReportConfig(directories=tuple(map(str, directories)), output=out))


def save(path: Path, command: str, models: list[Path], metrics: dict[str, float]) -> None:
    """Save a record as `--json > path` does."""
    config = {"models": [str(model.absolute()) for model in models]}
    path.write_text(json.dumps(Record(command=command, config=config, metrics=metrics, environment={}).to_json()))


def test_a_row_has_the_size_and_the_last_record_s_metrics(distilled: Path, plain: Path, tmp_path: Path) -> None:
    """Sizes come from the weights of each directory; the held-out loss is the last record's, not an ancestor's."""
    done = run(tmp_path / "out", distilled, plain)
    first, second = table(tmp_path / "out")
    for row, directory in ((first, distilled), (second, plain)):
        model = AutoModelForMaskedLM.from_pretrained(directory)
        parameters = sum(tensor.numel() for tensor in model.parameters())
        assert row["parameters"] == f"{parameters:,}"
        assert row["bytes"] == f"{(directory / 'model.safetensors').stat().st_size:,}"
    assert (first["heldout_loss"], second["heldout_loss"]) == ("4.25", "")
    assert done.metrics["0/heldout_loss"] == 4.25
    assert "1/heldout_loss" not in done.metrics


def test_columns_are_those_that_somebody_has(plain: Path, tmp_path: Path) -> None:
    """Without records there are only sizes, no picture and no mention of one."""
    run(tmp_path / "out", plain)
    assert list(table(tmp_path / "out")[0]) == ["model", "parameters", "bytes"]
    assert not list((tmp_path / "out").glob("learning-curve*"))
    assert "![" not in (tmp_path / "out/report.md").read_text()


def test_saved_eval_and_bench_records_find_their_models(distilled: Path, plain: Path, tmp_path: Path) -> None:
    """A saved record's numbers go to the models that it names, by position, wherever the file lies."""
    speeds = {"0/cpu/fp32/b1/l8/latency_ms_p50": 8.0, "1/cpu/fp32/b1/l8/latency_ms_p50": 4.0, "1/speedup": 2.0}
    save(distilled / "bench.json", "bench", [plain, distilled], speeds)
    scores = {"sst2/accuracy": 0.9, "retention/sst2": 0.97, "sst2/accuracy/min": 0.8}
    save(plain / "eval-sst2.json", "eval", [distilled], scores)
    save(plain / "eval-rte.json", "eval", [distilled, plain], {"0/rte/accuracy": 0.5, "1/rte/accuracy": 0.625})
    run(tmp_path / "out", distilled, plain)
    latency = "cpu/fp32/b1/l8/latency_ms_p50"
    columns = ["model", "parameters", "bytes", "heldout_loss", "rte/accuracy", "sst2/accuracy", "retention/sst2"]
    first, second = table(tmp_path / "out")
    assert list(first) == [*columns, latency, "speedup"]
    assert [first[name] for name in list(first)[4:]] == ["0.5", "0.9", "0.97", "4", "2"]
    assert [second[name] for name in list(second)[4:]] == ["0.625", "", "", "8", ""]


def test_curves_are_the_lines_of_train_jsonl(
    distilled: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training losses are drawn faint and held-out ones bold, both over tokens; who has no curve has no line."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    assert [path.name for path in plot_curves([str(plain), str(distilled)], tmp_path / "c")] == ["c.png", "c.svg"]
    (axes,) = figures[0].axes
    training, heldout = axes.lines
    assert training.get_xydata().tolist() == [[100, 5.0], [200, 4.0], [300, 3.5]]
    assert heldout.get_xydata().tolist() == [[200, 4.5], [300, 4.25]]
    assert training.get_alpha() < 1 == (heldout.get_alpha() or 1)
    assert training.get_linewidth() < heldout.get_linewidth()
    assert training.get_color() == heldout.get_color()
    assert axes.get_xlabel() == "tokens"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [f"{distilled.name}, training", f"{distilled.name}, held out"]


def test_the_picture_is_written_twice_and_shown(distilled: Path, tmp_path: Path) -> None:
    """There is a PNG and an SVG, and the report shows one that is there."""
    run(tmp_path / "out", distilled)
    assert (tmp_path / "out/learning-curve.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "out/learning-curve.svg").read_text()
    assert "(learning-curve.svg)" in (tmp_path / "out/report.md").read_text()
    assert [entry.command for entry in read_biography(tmp_path / "out")] == ["report"]


def test_a_curve_cut_off_in_its_last_line_is_drawn_and_a_damaged_one_refused(distilled: Path, tmp_path: Path) -> None:
    """An interrupted run leaves half a line, which is left out; anything else is an error that names the file."""
    path = distilled / "train.jsonl"
    text = path.read_text()
    path.write_text(text + '{"step": 4, "lo')
    assert len(plot_curves([str(distilled)], tmp_path / "curve")) == 2
    path.write_text("{nonsense}\n" + text)
    with pytest.raises(DistilkitError, match=r"train\.jsonl' is damaged"):
        plot_curves([str(distilled)], tmp_path / "curve")


def test_without_matplotlib_the_extra_is_named_and_nothing_is_left(
    distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one line that says what to install, and there is no half a report."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DistilkitError, match=r"pip install 'distilkit\[plots\]'"):
        run(tmp_path / "out", distilled)
    assert not (tmp_path / "out").exists()


def test_directories_without_anything_are_refused(distilled: Path, tmp_path: Path) -> None:
    """An empty directory, one that isn't there and a saved file that is no record are errors that name them."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for directory in (empty, tmp_path / "absent"):
        with pytest.raises(DistilkitError, match=f"nothing to report in '{directory}'"):
            run(tmp_path / "out", distilled, directory)
    (empty / "bench.json").write_text("[1, 2]")
    with pytest.raises(DistilkitError, match="is no record of models"):
        run(tmp_path / "out", empty)


def test_rows_are_called_by_name_or_by_path_where_names_clash() -> None:
    """Two directories with one name are told apart."""
    assert labels(["runs/a", "runs/b/"]) == ["a", "b"]
    assert labels(["x/best", "y/best", "z"]) == ["x/best", "y/best", "z"]


def test_the_command_in_the_report_makes_the_same_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is spelled from a record, when typed again, is the config that the record was made from."""
    config = InitConfig(teacher="some/teacher id", output=Path("/made by/a b"), keep=(0, 3), strategy="last", seed=7)
    line = command_line(record("init", config, {}))
    typed = []

    def init(given: InitConfig) -> Record:
        typed.append(given)
        return record("init", given, {})

    monkeypatch.setattr(student, "init", init)
    program, *words = shlex.split(line)
    result = CliRunner().invoke(app, words)
    assert (program, result.exit_code, [vars(given) for given in typed]) == ("distilkit", 0, [vars(config)])
    assert line.count("--") == len([name for name in ("keep", "strategy", "seed") if getattr(config, name)])


def test_a_record_of_another_version_is_still_spelled() -> None:
    """A command or an option that this version doesn't know is left out, not an error."""
    base = record("init", InitConfig(teacher="t", output=Path("/o")), {})
    newer = dataclasses.replace(base, config={**base.config, "later_option": 3})
    assert command_line(newer) == command_line(base)
    assert command_line(dataclasses.replace(base, command="later")) == "distilkit later"


def test_the_details_name_every_ancestor_s_command(distilled: Path, tmp_path: Path) -> None:
    """The folded section holds a line for each record, oldest first."""
    run(tmp_path / "out", distilled)
    text = (tmp_path / "out/report.md").read_text()
    assert text.index("distilkit init some/teacher") < text.index("distilkit distill some/student")
    assert "--corpus text" in text
    assert "--lr 0.001" in text
