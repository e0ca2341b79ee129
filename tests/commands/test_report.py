"""report: what it makes of records, from one `init` to a whole chain, and which of its files it may write over."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from records import save, write_model
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.commands import init as student
from distilkit.commands.report import report
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.options.init import InitOptions
from distilkit.options.report import ReportOptions
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.reporting.models import labels, read, scores_of
from distilkit.reporting.provenance import reproduction_command


def run(out: Path, *directories: Path, **options: bool) -> Record:
    return report(ReportOptions(directories=tuple(map(str, directories)), output=out, **options))


def table(out: Path, title: str = "Models") -> list[dict[str, str]]:
    """Read a table of report.md back."""
    text = (out / "report.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in body]


def test_a_chain_s_table_has_each_model_s_own_figures(chain: Path, tmp_path: Path) -> None:
    """Sizes, times, scores and retentions of a row are those that the records have for its position."""
    done = run(tmp_path / "out", *(chain / name for name in ("teacher-tuned", "student-tuned", "control-tuned")), chain)
    rows = {row["Model"].partition(" ")[0]: row for row in table(tmp_path / "out")}
    latency = "Latency (ms, CPU fp32, batch 1, 64 tokens)"
    wanted = {
        "Parameters (millions)": ("0.2", "0.1", "0.1"),
        "Size (MB)": ("0.8", "0.4", "0.4"),
        latency: ("8.00", "5.00", "4.00"),
        "Speed-up (median)": ("", "1.60×", "2.00×"),
        "MRPC (F1)": ("0.880", "0.836 (0.814 to 0.852)", "0.792"),
        "Retention (MRPC)": ("", "95.0% (91.0% to 98.5%)", "90.0%"),
    }
    for column, cells in wanted.items():
        for name, cell in zip(("teacher-tuned", "student-tuned", "control-tuned"), cells, strict=True):
            assert rows[name][column] == cell, (column, name)
    assert rows["student"]["Held-out loss (masked LM)"] == "4.250"
    assert done.metrics["1/retention/mrpc/low"] == 0.91
    assert done.metrics["2/mrpc/f1"] == 0.792


def test_a_checkpoint_a_task_is_one_model(tmp_path: Path) -> None:
    """Directories with a checkpoint for each task are a row each, with what eval and bench say of any of them."""
    for name, scores in (("teacher", (0.88, 0.7)), ("student", (0.836, 0.63))):
        for task, metric, score in zip(("mrpc", "rte"), ("f1", "accuracy"), scores, strict=True):
            place = tmp_path / name / task
            tuned = FinetuneOptions(model="some/model", output=place, task=task, seeds=3)
            found = {
                f"{task}/{metric}": score,
                f"{task}/{metric}/min": score - 0.01,
                f"{task}/{metric}/max": score + 0.01,
            }
            write_model(place, 1000, [record("finetune", tuned, {"seconds": 30.0, **found})])
    measured = tmp_path / "measured"
    measured.mkdir()
    for task, kept in (("mrpc", 0.95), ("rte", 0.9)):
        pair = tuple(str(tmp_path / name / task) for name in ("teacher", "student"))
        evaluated = EvalOptions(models=pair, against=pair[0], task=task)
        save(measured / f"eval-{task}.json", record("eval", evaluated, {f"1/retention/{task}": kept}))
    timed = BenchOptions(models=tuple(str(tmp_path / name / "rte") for name in ("teacher", "student")))
    save(measured / "bench.json", record("bench", timed, {"1/speedup": 1.6}))

    run(tmp_path / "out", tmp_path / "teacher", tmp_path / "student", measured)
    assert table(tmp_path / "out") == [
        {
            "Model": "teacher", "Parameters (millions)": "0.0", "Size (MB)": "0.0", "Speed-up (median)": "",
            "MRPC (F1)": "0.880 (0.870 to 0.890)", "Retention (MRPC)": "",
            "RTE (accuracy)": "0.700 (0.690 to 0.710)", "Retention (RTE)": "",
        },
        {
            "Model": "student", "Parameters (millions)": "0.0", "Size (MB)": "0.0", "Speed-up (median)": "1.60×",
            "MRPC (F1)": "0.836 (0.826 to 0.846)", "Retention (MRPC)": "95.0%",
            "RTE (accuracy)": "0.630 (0.620 to 0.640)", "Retention (RTE)": "90.0%",
        },
    ]  # fmt: skip
    assert "finetune: student/rte" in (tmp_path / "out/report.html").read_text()


def test_parts_are_told_from_the_records(chain: Path) -> None:
    """Trained with a teacher: student; by masked LM alone after init: control; compared with: teacher."""
    results = read([str(chain)])
    parts = {model.name: results.role(model) for model in results.models}
    assert parts == {
        "extracted": "extracted", "student": "student", "control": "control",
        "student-tuned": "student", "control-tuned": "control", "teacher-tuned": "teacher",
    }  # fmt: skip


def test_the_headline_compares_the_student_with_teacher_and_control(chain: Path, tmp_path: Path) -> None:
    """Half the parameters, 8 ms over 5 ms, 0.836 over 0.88 and 0.836 over 0.792, by hand."""
    run(tmp_path / "out", chain)
    text = (tmp_path / "out/report.md").read_text()
    assert text.startswith("# student-tuned\n\n2 of the 4 layers of some/teacher; distilled on words.txt, 300 tokens")
    for line in (
        "- **50%** smaller: 0.1M of 0.2M parameters",
        "- **1.60×** as fast as teacher-tuned: CPU fp32, batch 1, 64 tokens",
        "- **95.0%** of teacher-tuned's score retained: MRPC, 95 % interval 91.0% to 98.5%",
        "- **1 of 1** tasks better than control-tuned: 0 worse; baseline trained without a teacher",
    ):
        assert line in text


def test_commands_stand_once_in_an_order_to_run_them_again(chain: Path, tmp_path: Path) -> None:
    """Ancestors that models share are listed once, before what was made of them, with paths from where they all lie."""
    run(tmp_path / "out", chain)
    text = (tmp_path / "out/report.md").read_text().partition("## How it was made")[2]
    commands = [line for line in text.splitlines() if line.startswith("distilkit ")]
    assert commands.count("distilkit init some/teacher -o extracted --seed 7") == 1
    made = [shlex.split(line)[shlex.split(line).index("-o") + 1] for line in commands if " -o " in line]
    assert sorted(made) == ["control", "control-tuned", "extracted", "student", "student-tuned", "teacher-tuned"]
    for line in commands:
        words = shlex.split(line)
        if words[1] in ("distill", "finetune") and words[2] in made:
            assert made.index(words[2]) < made.index(words[words.index("-o") + 1])
    assert [line.split()[1] for line in commands[-2:]] == ["bench", "eval"]
    assert "largest output difference 0" in text
    assert "seeds 42 to 44" in text


def test_from_an_init_alone_there_is_a_report_that_says_what_is_missing(tmp_path: Path) -> None:
    """One record gives sizes from its own metrics; no plot is made or mentioned; commands for the rest are named."""
    made = InitOptions(teacher="some/teacher", output=tmp_path / "a")
    (tmp_path / "a").mkdir()
    sizes = {"teacher/parameters": 4e6, "student/parameters": 3e6}
    write_biography(tmp_path / "a", [record("init", made, sizes)])
    run(tmp_path / "out", tmp_path / "a")
    text = (tmp_path / "out/report.md").read_text()
    assert "**25%** smaller: 3.0M of 4.0M parameters" in text
    assert "No bench record" in text
    assert "distilkit bench some/teacher a --json > a/bench.json" in text
    assert "distilkit finetune a --task NAME -o a-NAME" in text
    assert "![" not in text
    assert not list((tmp_path / "out").glob("*.png"))


def test_missing_control_and_eval_are_named_with_the_options_of_the_run(chain: Path, tmp_path: Path) -> None:
    """The control is spelled from the student's own record, less the teacher; the eval from that of the fine-tuning."""
    (chain / "eval.json").unlink()
    (chain / "bench.json").unlink()
    run(tmp_path / "out", chain / "student-tuned")
    text = (tmp_path / "out/report.md").read_text()
    control = next(line for line in text.splitlines() if "-control" in line).strip()
    words = shlex.split(control)
    assert words[:3] == ["distilkit", "distill", "extracted"]
    assert ("--objective", "mlm") in pairwise(words)
    assert ("--lr", "0.001") in pairwise(words)
    assert not {"--alpha-ce", "--temperature", "--teacher"} & set(words)
    assert (
        "distilkit eval student-tuned --data mrpc --task mrpc --against TEACHER --json > student-tuned/eval.json"
        in text
    )
    assert "No learning curve of student-tuned" in text


def test_a_saved_record_that_moved_with_its_models_still_finds_them(chain: Path, tmp_path: Path) -> None:
    """After the whole folder was moved, the records' paths are dead and names decide."""
    chain.rename(tmp_path / "moved")
    done = run(tmp_path / "out", tmp_path / "moved" / "student-tuned", tmp_path / "moved")
    assert done.metrics["0/speedup"] == 1.6


def test_saved_records_may_lie_in_a_directory_of_their_own(chain: Path, tmp_path: Path) -> None:
    """A directory that holds nothing but what eval and bench found is no model."""
    (tmp_path / "found").mkdir()
    (chain / "bench.json").rename(tmp_path / "found/bench.json")
    done = run(tmp_path / "out", chain / "student-tuned", tmp_path / "found")
    assert done.metrics["0/speedup"] == 1.6
    assert "found" not in [row["Model"] for row in table(tmp_path / "out")]


def test_models_measured_beside_the_given_ones_have_rows(chain: Path, tmp_path: Path) -> None:
    """Given one model and the record of a bench with a hub id in it, the table has both."""
    bench = json.loads((chain / "bench.json").read_text())
    bench["config"]["models"][0] = "hub/teacher"
    (chain / "student-tuned/bench.json").write_text(json.dumps(bench))
    run(tmp_path / "out", chain / "student-tuned")
    rows = {row["Model"].partition(" (")[0]: row for row in table(tmp_path / "out")}
    assert rows["hub/teacher"]["Latency (ms, CPU fp32, batch 1, 64 tokens)"] == "8.00"


def test_an_eval_of_one_model_tells_of_its_teacher_and_its_control_too(chain: Path, tmp_path: Path) -> None:
    """As `eval STUDENT --against TEACHER --control CONTROL` writes it: three rows, and differences by control."""
    places = [str(chain / f"{name}-tuned") for name in ("teacher", "student", "control")]
    (chain / "eval.json").unlink()
    scores = {
        "mrpc/f1": 0.8, "teacher/mrpc/f1": 0.9, "control/mrpc/f1": 0.7, "retention/mrpc": 0.889,
        "control/retention/mrpc": 0.778, "difference/mrpc/control": 0.1, "difference/mrpc/control/low": 0.02,
        "difference/mrpc/control/high": 0.18, "difference/mrpc/teacher": -0.1,
    }  # fmt: skip
    evaluated = EvalOptions(models=(places[1],), against=places[0], control=(places[2],), task="mrpc")
    save(chain / "student-tuned/eval.json", record("eval", evaluated, scores))
    run(tmp_path / "out", chain / "student-tuned")
    rows = {row["Model"].partition(" ")[0]: row for row in table(tmp_path / "out")}
    assert [rows[f"{name}-tuned"]["MRPC (F1)"] for name in ("teacher", "student", "control")] == [
        "0.900", "0.800 (0.814 to 0.852)", "0.700",
    ]  # fmt: skip
    assert [rows[f"{name}-tuned"]["Retention (MRPC)"] for name in ("teacher", "student", "control")] == [
        "", "88.9%", "77.8%",
    ]  # fmt: skip
    beside = {row["Model"]: row["Difference (to control-tuned)"] for row in table(tmp_path / "out", "Scores")}
    assert beside == {"student-tuned": "+0.100 (+0.020 to +0.180)", "teacher-tuned": "", "control-tuned": ""}
    text = (tmp_path / "out/report.md").read_text()
    assert "- **1 of 1** tasks better than control-tuned: 0 worse;" in text
    assert "No control" not in text


@pytest.mark.parametrize(
    ("task", "metrics", "said"),
    [
        (
            "sst2",
            {"sst2/accuracy": 0.5, "seed-43/diverged": 1.0, "seed-44/collapsed": 1.0},
            (
                "a, sst2: seed 43 diverged, it does not count. "
                "a, sst2: seed 44 collapsed, it predicts the same label for every row."
            ),
        ),
        (
            "glue",
            {"glue/average": 0.5, "mnli/seed-43/diverged": 1.0, "cola/collapsed": 1.0},
            "a, mnli: seed 43 diverged, it does not count. a, cola: it predicts the same label for every row.",
        ),
    ],
)
def test_seeds_that_diverged_or_collapsed_are_named(
    tmp_path: Path, task: str, metrics: dict[str, float], said: str
) -> None:
    """A median says nothing of them, so the table does."""
    tuned = FinetuneOptions(model="some/model", output=tmp_path / "a", task=task, seeds=3)
    write_model(tmp_path / "a", 10, [record("finetune", tuned, metrics)])
    run(tmp_path / "out", tmp_path / "a")
    assert said in (tmp_path / "out/report.md").read_text()


def test_wnli_is_no_part_of_the_mean(tmp_path: Path) -> None:
    """Three tasks kept at 80, 90 and 150 %, the last WNLI: the headline says 85 %, and what it leaves out."""
    born = InitOptions(teacher="some/teacher", output=tmp_path / "student")
    write_model(tmp_path / "student", 10, [record("init", born, {})])
    places = (str(tmp_path / "teacher"), str(tmp_path / "student"))
    for task, kept in {"cola": 0.8, "sst2": 0.9, "wnli": 1.5}.items():
        evaluated = EvalOptions(models=places, against=places[0], task=task)
        save(tmp_path / "student" / f"eval-{task}.json", record("eval", evaluated, {f"1/retention/{task}": kept}))
    run(tmp_path / "out", tmp_path / "student")
    line = "- **85.0%** of teacher's scores retained: mean of 2 tasks, without WNLI; lowest on CoLA: 80.0%"
    assert line in (tmp_path / "out/report.md").read_text()


def test_a_moved_model_s_figures_are_its_own(tmp_path: Path) -> None:
    """Checkpoints called by their task are told apart by the directory above."""
    places = []
    for name, score in (("teacher", 0.9), ("student", 0.8)):
        tuned = FinetuneOptions(model="some/model", output=tmp_path / name / "sst2", task="sst2")
        write_model(tmp_path / name / "sst2", 10, [record("finetune", tuned, {"sst2/accuracy": score})])
        places.append(tmp_path / name / "sst2")
    timed = BenchOptions(models=("/gone/teacher/sst2", "/gone/student/sst2"))
    save(places[0] / "bench.json", record("bench", timed, {"0/speedup": 1.0, "1/speedup": 2.0}))
    assert [model.metrics["speedup"] for model in read([str(place) for place in places]).models] == [1.0, 2.0]


def test_broken_lines_of_train_jsonl_are_passed_over_with_a_warning(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a line of a killed run, garbage, and lines of something else don't cost the report; the user is told."""
    path = chain / "student/train.jsonl"
    path.write_text(path.read_text() + '{nonsense}\n[1, 2]\n\n{"text": "a row", "label": 1}\n{"step": 4, "lo')
    (model,) = read([str(chain / "student")]).models[:1]
    assert [line["step"] for line in model.curve] == [1, 2, 2, 3, 3]
    assert f"'{path}' has 3 unreadable lines" in capsys.readouterr().err


def test_records_of_another_schema_are_read(tmp_path: Path) -> None:
    """Options and commands that this version doesn't know, and ones that it misses, leave a report all the same."""
    entries = [
        {"schema": 0, "command": "init", "config": {"teacher": "t"}, "metrics": {}, "environment": {}},
        {"command": "shrink", "config": {"factor": 2}, "metrics": {"parameters": 5e6}, "environment": {}, "later": 1},
    ]
    (tmp_path / "old").mkdir()
    (tmp_path / "old/distilkit.json").write_text(json.dumps(entries))
    run(tmp_path / "out", tmp_path / "old")
    text = (tmp_path / "out/report.md").read_text()
    assert "distilkit init --teacher t\n" in text
    assert "distilkit shrink --factor 2\n" in text
    assert table(tmp_path / "out")[0]["Parameters (millions)"] == "5.0"


def test_without_matplotlib_everything_else_is_made(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what to install, and the page says it too."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(tmp_path / "out", chain)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["distilkit.json", "report.html", "report.md"]
    assert capsys.readouterr().err.count("pip install 'distilkit[plots]'") == 1
    assert "pip install 'distilkit[plots]'" in (tmp_path / "out/report.md").read_text()


def test_directories_without_anything_are_refused(chain: Path, tmp_path: Path) -> None:
    """An empty directory, one that isn't there and a saved file that is no record are errors that name them."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for directory in (empty, tmp_path / "absent"):
        with pytest.raises(DistilkitError, match=f"nothing to report in '{directory}'"):
            run(tmp_path / "out", chain, directory)
    (empty / "bench.json").write_text("[1, 2]")
    with pytest.raises(DistilkitError, match="is not a record of eval or bench"):
        run(tmp_path / "out", empty)
    assert not (tmp_path / "out").exists()


def test_a_used_output_directory_is_refused(chain: Path, tmp_path: Path) -> None:
    """Nothing of an earlier report, or of anything else, is written over."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(DistilkitError, match="not empty"):
        run(tmp_path / "out", chain)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_checkpoint_of_somebody_else_has_its_size(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Without records the weights still say how many parameters and bytes there are."""
    directory = make_checkpoint("bert", 2)
    done = run(tmp_path / "out", directory)
    assert done.metrics["0/bytes"] == (directory / "model.safetensors").stat().st_size
    assert [entry.command for entry in read_biography(tmp_path / "out")] == ["report"]


def test_models_are_called_by_name_or_by_path_where_names_clash() -> None:
    """Two directories with one name are told apart, and a hub id stays whole."""
    assert labels(["/runs/a", "/runs/b", "org/model"]) == ["a", "b", "org/model"]
    assert labels(["/a/x/best", "/a/y/best", "/z"]) == ["x/best", "y/best", "z"]
    assert labels(["/a/x/best", "/b/x/best"]) == ["/a/x/best", "/b/x/best"]


def test_the_command_in_the_report_makes_the_same_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is spelled from a record, when typed again, is the config that the record was made from."""
    config = InitOptions(teacher="some/teacher id", output=Path("/made by/a b"), keep=(0, 3), strategy="last", seed=7)
    line = reproduction_command(record("init", config, {}))
    typed = []

    def init(given: InitOptions) -> Record:
        typed.append(given)
        return record("init", given, {})

    monkeypatch.setattr(student, "init", init)
    program, *words = shlex.split(line)
    result = CliRunner().invoke(app, words)
    assert (program, result.exit_code, [vars(given) for given in typed]) == ("distilkit", 0, [vars(config)])


def test_an_option_of_a_later_version_is_left_out() -> None:
    """It could not be typed here."""
    base = record("init", InitOptions(teacher="t", output=Path("/o")), {})
    newer = dataclasses.replace(base, config={**base.config, "later_option": 3})
    assert reproduction_command(newer) == reproduction_command(base)


def test_the_command_line_takes_the_options(chain: Path, tmp_path: Path) -> None:
    """As typed: --card writes the cards, --json prints the record."""
    result = CliRunner().invoke(app, ["report", str(chain), "-o", str(tmp_path / "out"), "--card", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["command"] == "report"
    assert (chain / "student-tuned/README.md").is_file()
    again = CliRunner().invoke(app, ["report", str(tmp_path / "absent"), "-o", str(tmp_path / "out2")])
    assert again.exit_code == 1


def test_only_scores_are_scores(tmp_path: Path) -> None:
    """Ranges of losses, counts and agreement are facts of a model, but no tasks."""
    facts = {"loss/min": 0.1, "loss/max": 0.3, "kept_evaluation/max": 1.0, "agreement/kl": 0.2, "sst2/collapsed": 1.0}
    tuned = FinetuneOptions(model="some/model", output=tmp_path / "a", task="sst2", seeds=3)
    write_model(tmp_path / "a", 10, [record("finetune", tuned, {**facts, "sst2/accuracy": 0.5})])
    assert [list(scores_of(model)) for model in read([str(tmp_path / "a")]).models] == [[("sst2", "accuracy")]]


def test_a_speed_up_is_against_the_first_of_its_own_bench(tmp_path: Path) -> None:
    """Another bench in the same report has another first model."""
    pairs = {"one": ("teacher", "student"), "two": ("other", "tiny")}
    for first, second in pairs.values():
        for name in (first, second):
            born = InitOptions(teacher="some/teacher", output=tmp_path / name)
            write_model(tmp_path / name, 10, [record("init", born, {})] if name == "student" else [])
    for name, pair in pairs.items():
        (tmp_path / name).mkdir()
        timed = BenchOptions(models=tuple(str(tmp_path / model) for model in pair))
        save(tmp_path / name / "bench.json", record("bench", timed, {"1/speedup": 2.0}))
    run(tmp_path / "out", *(tmp_path / name for name in ("student", "one", "two")))
    assert "- **2.00×** as fast as teacher" in (tmp_path / "out/report.md").read_text()


def test_a_custom_task_s_column_is_the_headline_of_its_kind(tmp_path: Path) -> None:
    """Of several labels at once micro F1, whose retention it is; a number's task is a column apart."""
    scores = {"custom/f1_micro": 0.6, "custom/f1_macro": 0.5, "custom/accuracy": 0.2}
    for name, label, found in (("several", "tags", scores), ("number", "score", {"custom/pearson": 0.7})):
        tuned = FinetuneOptions(model="some/model", output=tmp_path / name, task="custom", label=label)
        write_model(tmp_path / name, 10, [record("finetune", tuned, found)])
    evaluated = EvalOptions(models=(str(tmp_path / "several"),), against="some/teacher", task="custom", label="tags")
    save(tmp_path / "several/eval.json", record("eval", evaluated, {**scores, "retention/custom": 0.9}))
    run(tmp_path / "out", tmp_path / "several", tmp_path / "number")
    rows = {row["Model"]: row for row in table(tmp_path / "out")}
    assert rows["several"]["custom task (micro F1)"] == "0.600"
    assert rows["several"]["Retention (custom task)"] == "90.0%"
    assert rows["number"]["custom task (Pearson)"] == "0.700"
    assert rows["number"]["custom task (micro F1)"] == ""
    assert "custom task (accuracy)" not in rows["several"]
    assert "custom tasks differ in data or labels" in (tmp_path / "out/report.md").read_text()
