"""The tables of a report: the values in their cells."""

from pathlib import Path

import pytest
from records import save, write_model

from distilkit.options.bench import BenchOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.record import BenchSetting, record
from distilkit.reporting.models import Model, read
from distilkit.reporting.tables import Cell, Table, common_setting, overview, scores, settings, speeds
from distilkit.wording import describe_setting


def column(table: Table, title: str, note: str = "") -> dict[str, Cell]:
    """Return the cells of the column with this head, by model."""
    place = table.heads.index(Cell(title, note))
    return {row[0].text: row[place] for row in table.rows}


def read_tables(*directories: Path) -> tuple[Table, Table, Table]:
    """Return the three tables of a report on these directories."""
    results = read([str(directory) for directory in directories])
    return overview(results), scores(results), speeds(results)


def test_a_chain_s_table_has_each_model_s_own_figures(chain: Path) -> None:
    """Sizes, times, scores and retentions in a row are those of the model's position in the records."""
    models, _, _ = read_tables(*(chain / name for name in ("teacher-tuned", "student-tuned", "control-tuned")), chain)
    wanted: dict[tuple[str, str], tuple[Cell, Cell, Cell]] = {
        ("Parameters", "millions"): (Cell("0.2"), Cell("0.1"), Cell("0.1")),
        ("Size", "MB"): (Cell("0.8"), Cell("0.4"), Cell("0.4")),
        ("Latency", "ms, CPU fp32, batch 1, 64 tokens"): (Cell("8.00"), Cell("5.00"), Cell("4.00")),
        ("Speed-up", "median"): (Cell(""), Cell("1.60×"), Cell("2.00×")),
        ("MRPC", "F1"): (Cell("0.880"), Cell("0.836", "0.814 to 0.852"), Cell("0.792")),
        ("Retention", "MRPC"): (Cell(""), Cell("95.0%", "91.0% to 98.5%"), Cell("90.0%")),
    }
    for head, cells in wanted.items():
        found = column(models, *head)
        assert tuple(found[f"{name}-tuned"] for name in ("teacher", "student", "control")) == cells, head
    assert column(models, "Held-out loss", "masked LM")["student"] == Cell("4.250")
    assert {row[0].text: row[0].note for row in models.rows} == {
        "extracted": "", "student": "", "control": "baseline",
        "teacher-tuned": "teacher", "student-tuned": "student", "control-tuned": "baseline",
    }  # fmt: skip


def test_a_checkpoint_per_task_is_one_model(tmp_path: Path) -> None:
    """A directory with a checkpoint for each task is one row, with what eval and bench measured of any of them."""
    for name, values in (("teacher", (0.88, 0.7)), ("student", (0.836, 0.63))):
        for task, metric, score in zip(("mrpc", "rte"), ("f1", "accuracy"), values, strict=True):
            place, key = tmp_path / name / task, f"{task}/{metric}"
            tuned = FinetuneOptions(model="some/model", output=place, task=task, seeds=3)
            found = {key: score, f"{key}/min": score - 0.01, f"{key}/max": score + 0.01}
            write_model(place, 1000, [record("finetune", tuned, {"seconds": 30.0, **found})])
    (tmp_path / "measured").mkdir()
    for task, kept in (("mrpc", 0.95), ("rte", 0.9)):
        pair = tuple(str(tmp_path / name / task) for name in ("teacher", "student"))
        evaluated = EvalOptions(models=pair, against=pair[0], task=task)
        save(tmp_path / f"measured/eval-{task}.json", record("eval", evaluated, {f"1/retention/{task}": kept}))
    timed = BenchOptions(models=tuple(str(tmp_path / name / "rte") for name in ("teacher", "student")))
    save(tmp_path / "measured/bench.json", record("bench", timed, {"1/speedup": 1.6}))

    models, _, _ = read_tables(*(tmp_path / name for name in ("teacher", "student", "measured")))
    assert models.heads == [
        Cell("Model"), Cell("Parameters", "millions"), Cell("Size", "MB"), Cell("Speed-up", "median"),
        Cell("MRPC", "F1"), Cell("Retention", "MRPC"), Cell("RTE", "accuracy"), Cell("Retention", "RTE"),
    ]  # fmt: skip
    assert models.rows == [
        [
            Cell("teacher"), Cell("0.0"), Cell("0.0"), Cell(""),
            Cell("0.880", "0.870 to 0.890"), Cell(""), Cell("0.700", "0.690 to 0.710"), Cell(""),
        ],
        [
            Cell("student"), Cell("0.0"), Cell("0.0"), Cell("1.60×"),
            Cell("0.836", "0.826 to 0.846"), Cell("95.0%"), Cell("0.630", "0.620 to 0.640"), Cell("90.0%"),
        ],
    ]  # fmt: skip


def test_an_eval_of_one_model_has_figures_of_its_teacher_and_baseline(chain: Path) -> None:
    """`eval STUDENT --against TEACHER --control BASELINE` gives three rows, and a difference to the baseline."""
    places = [str(chain / f"{name}-tuned") for name in ("teacher", "student", "control")]
    (chain / "eval.json").unlink()
    metrics = {
        "mrpc/f1": 0.8, "teacher/mrpc/f1": 0.9, "control/mrpc/f1": 0.7, "retention/mrpc": 0.889,
        "control/retention/mrpc": 0.778, "difference/mrpc/control": 0.1, "difference/mrpc/control/low": 0.02,
        "difference/mrpc/control/high": 0.18, "difference/mrpc/teacher": -0.1,
    }  # fmt: skip
    evaluated = EvalOptions(models=(places[1],), against=places[0], control=(places[2],), task="mrpc")
    save(chain / "student-tuned/eval.json", record("eval", evaluated, metrics))

    models, every_score, _ = read_tables(chain / "student-tuned")
    assert column(models, "MRPC", "F1") == {
        "student-tuned": Cell("0.800", "0.814 to 0.852"),
        "teacher-tuned": Cell("0.900"), "control-tuned": Cell("0.700"),
    }  # fmt: skip
    assert column(models, "Retention", "MRPC") == {
        "student-tuned": Cell("88.9%"), "teacher-tuned": Cell(""), "control-tuned": Cell("77.8%"),
    }  # fmt: skip
    assert column(every_score, "Difference", "baseline: control-tuned") == {
        "student-tuned": Cell("+0.100", "+0.020 to +0.180"), "teacher-tuned": Cell(""), "control-tuned": Cell(""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "metrics", "caption"),
    [
        (
            "sst2",
            {"sst2/accuracy": 0.5, "seed-43/diverged": 1.0, "seed-44/collapsed": 1.0},
            "a, sst2: seed 43 diverged and does not count. a, sst2: seed 44 predicts the same label for every row.",
        ),
        (
            "glue",
            {"glue/average": 0.5, "mnli/seed-43/diverged": 1.0, "cola/collapsed": 1.0},
            "a, mnli: seed 43 diverged and does not count. a, cola: it predicts the same label for every row.",
        ),
    ],
)
def test_seeds_that_diverged_or_collapsed_are_named(
    tmp_path: Path, task: str, metrics: dict[str, float], caption: str
) -> None:
    """A median over seeds hides them, so the caption names them."""
    tuned = FinetuneOptions(model="some/model", output=tmp_path / "a", task=task, seeds=3)
    write_model(tmp_path / "a", 10, [record("finetune", tuned, metrics)])
    assert caption in read_tables(tmp_path / "a")[1].caption


def test_a_custom_task_s_column_is_the_headline_of_its_kind(tmp_path: Path) -> None:
    """Several labels per row are headed by micro F1, with its retention; a regression has a column of its own."""
    found = {"custom/f1_micro": 0.6, "custom/f1_macro": 0.5, "custom/accuracy": 0.2}
    for name, label, metrics in (("several", "tags", found), ("number", "score", {"custom/pearson": 0.7})):
        tuned = FinetuneOptions(model="some/model", output=tmp_path / name, task="custom", label=label)
        write_model(tmp_path / name, 10, [record("finetune", tuned, metrics)])
    evaluated = EvalOptions(models=(str(tmp_path / "several"),), against="some/teacher", task="custom", label="tags")
    save(tmp_path / "several/eval.json", record("eval", evaluated, {**found, "retention/custom": 0.9}))

    models, _, _ = read_tables(tmp_path / "several", tmp_path / "number")
    assert column(models, "custom task", "micro F1")["several"] == Cell("0.600")
    assert column(models, "Retention", "custom task")["several"] == Cell("90.0%")
    assert column(models, "custom task", "Pearson")["number"] == Cell("0.700")
    assert column(models, "custom task", "micro F1")["number"] == Cell("")
    assert Cell("custom task", "accuracy") not in models.heads
    assert "custom tasks differ in data or labels" in models.caption


def test_agreement_with_the_teacher_has_a_column(chain: Path) -> None:
    """As an eval --agreement kept it beside the student."""
    agreed = record("eval", EvalOptions(models=(str(chain / "student"),), agreement="t"), {"agreement": 0.75})
    save(chain / "student" / "eval-1.json", agreed)
    models, _, _ = read_tables(chain)
    assert column(models, "Agreement", "with the teacher")["student"] == Cell("0.750")


def test_settings_are_sorted_as_numbers() -> None:
    """Batch 8 comes before batch 32. The setting shared by most models is the one to compare in."""
    names = ("cpu/fp32/b32/l64", "cpu/fp32/b8/l64", "cuda/bf16/b1/l128")
    every = {f"{name}/latency_ms_p50": 1.0 for name in names}
    models = [Model("a", "/a", [], every, []), Model("b", "/b", [], {"cpu/fp32/b32/l64/latency_ms_p50": 2.0}, [])]
    assert [str(setting) for setting in settings(models)] == [names[1], names[0], names[2]]
    assert common_setting(models) == BenchSetting("cpu", "fp32", 32, 64)
    assert common_setting([]) is None
    assert describe_setting(BenchSetting("cuda", "bf16", 1, 128)) == "GPU bf16, batch 1, 128 tokens"
