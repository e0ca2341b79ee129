"""A record on the terminal: the tables as values, and the suggested next command."""

import json
from pathlib import Path
from typing import Any

import pytest

from distilkit.record import Record
from distilkit.screen import show, tabulate


def done(command: str, metrics: dict[str, float], environment: dict[str, str] | None = None, **config: Any) -> Record:
    """Return a record."""
    return Record(command=command, config=config, metrics=metrics, environment=environment or {})


def test_one_model_has_a_column_of_values() -> None:
    """The metrics are listed in the order of the record."""
    metrics = {"loss": 2.5, "mrpc/f1": 0.8, "mrpc/f1/min": 0.7}
    assert tabulate(done("finetune", metrics)) == [(["metric", "value"], list(metrics.items()))]


def test_bench_has_a_column_per_model() -> None:
    """A metric that a model does not have is an empty cell. Models are in the order in which they were given."""
    metrics = {"1/speedup": 1.6, "0/parameters": 2.0, "1/parameters": 1.0}
    assert tabulate(done("bench", metrics)) == [
        (["metric", "0", "1"], [("speedup", None, 1.6), ("parameters", 2.0, 1.0)])
    ]


def test_eval_has_scores_and_intervals_with_baselines_by_name() -> None:
    """A baseline's column has the name of its directory; comparisons have their confidence intervals."""
    metrics = {
        "mrpc/f1": 0.8, "teacher/mrpc/f1": 0.9, "control/mrpc/f1": 0.7, "retention/mrpc": 0.889,
        "retention/mrpc/low": 0.8, "retention/mrpc/high": 0.95, "difference/mrpc/control": 0.1,
    }  # fmt: skip
    scores, intervals = tabulate(done("eval", metrics, control=["/runs/plain"]))
    assert scores == (["metric", "model", "teacher", "baseline: plain"], [("mrpc/f1", 0.8, 0.9, 0.7)])
    assert intervals[1] == [("retention/mrpc", 0.889, 0.8, 0.95), ("difference/mrpc/control", 0.1, None, None)]


def test_demo_has_a_column_per_model() -> None:
    """Its baseline has no other name."""
    metrics = {f"{model}/accuracy": value for model, value in (("teacher", 0.9), ("student", 0.8), ("control", 0.7))}
    assert tabulate(done("demo", metrics)) == [
        (["metric", "teacher", "student", "baseline"], [("accuracy", 0.9, 0.8, 0.7)])
    ]


def test_a_report_shows_sizes_and_scores() -> None:
    """The page has the other metrics: ranges, training time, latencies, slices."""
    names = ("parameters", "parameters/head", "sst2/accuracy", "sst2/accuracy/min", "retention/sst2",
             "retention/sst2/low", "seconds", "cpu/float32/b1/l32/latency_ms_p50", "agreement/slices/digits/1+",
             "custom/f1/billing", "speedup")  # fmt: skip
    found = tabulate(done("report", {f"{model}/{name}": 1.0 for model in (0, 1) for name in names}))
    shown = ("parameters", "sst2/accuracy", "retention/sst2", "speedup")
    assert found == [(["metric", "0", "1"], [(name, 1.0, 1.0) for name in shown])]


def test_an_export_is_shown_beside_its_checkpoint() -> None:
    """The checkpoint's scores are the record's teacher/ metrics; retention has its interval."""
    metrics = {
        "bytes": 17.0, "sts/spearmanr": 0.851, "teacher/sts/spearmanr": 0.854, "retention/sts": 0.997,
        "retention/sts/low": 0.996, "retention/sts/high": 0.999,
    }  # fmt: skip
    scores, intervals = tabulate(done("export", metrics, model="runs/student"))
    assert scores == (["metric", "exported", "student"], [("bytes", 17.0, None), ("sts/spearmanr", 0.851, 0.854)])
    assert intervals[1] == [("retention/sts", 0.997, 0.996, 0.999)]


def test_averages_are_listed_with_their_tasks() -> None:
    """An average without its tasks cannot be compared."""
    found = tabulate(done("eval", {"glue/average": 0.8}, {"glue/average": "cola sst2", "device": "cpu"}))
    assert found[-1] == (["average", "of"], [("glue/average", "cola sst2")])


def test_slices_and_bins_have_tables_of_their_own() -> None:
    """They are not among the other metrics; a slice is one row with all its figures."""
    metrics = {
        "agreement": 0.9, "agreement/slices/digits/1+": 0.5, "agreement/slices/digits/1+/high": 0.6,
        "agreement/slices/digits/1+/count": 40.0, "agreement/student_bins/0.900-1.000": 0.95,
        "agreement/student_bins/0.900-1.000/count": 10.0,
    }  # fmt: skip
    scores, slices, bins = tabulate(done("eval", metrics))
    assert scores == (["metric", "value"], [("agreement", 0.9)])
    assert slices[0] == ["slice", "agreement", "at most", "count"]
    assert slices[1] == [("digits/1+", 0.5, 0.6, 40.0)]
    assert bins[0] == ["student's confidence", "agreement", "count"]
    assert bins[1] == [("0.900-1.000", 0.95, 10.0)]


def test_init_shows_teacher_and_student_side_by_side() -> None:
    """The layers come first; a metric of both has an empty cell under the teacher."""
    metrics = {"teacher/layers": 4.0, "student/layers": 2.0, "max_difference": 0.0}
    found = tabulate(done("init", metrics, {"kept_layers": "0,3", "dropped_layers": "1,2"}))
    assert found == [
        (
            ["", "teacher", "student"],
            [
                ("layers kept", "", "0,3"),
                ("layers dropped", "", "1,2"),
                ("layers", 4.0, 2.0),
                ("max_difference", None, 0.0),
            ],
        )
    ]


def test_a_search_for_layers_shows_its_candidates() -> None:
    """The ranking comes before the sizes."""
    metrics = {"strategies/last/loss": 3.0, "strategies/last/agreement": 0.4}
    first, _ = tabulate(done("init", metrics, {"strategies/last": "2,3"}))
    assert first[1][0] == ("last", "2,3", 3.0, 0.4)


def test_a_plan_is_shown_in_readable_units() -> None:
    """Durations and memory have units."""
    metrics = {
        "updates": 100.0, "tokens": 5000.0, "tokens_per_second": 1234.4, "seconds": 2172.0, "heldout_seconds": 5.0,
        "peak_memory_bytes": 2.0**30, "memory_bytes": 8 * 2.0**30,
    }  # fmt: skip
    ((_, rows),) = tabulate(done("distill", metrics, plan=True))
    assert rows == [
        ("updates", 100.0), ("tokens", 5000.0), ("tokens per second", 1234), ("training", "36 min 12 s"),
        ("held-out text", "5.0 s"), ("peak memory", "1.0 of 8.0 GiB"),
    ]  # fmt: skip


def test_students_of_a_plan_are_rows() -> None:
    """The teacher comes first, without what only students have; the chosen one is marked."""
    metrics = {
        "1/speedup": 2.0, "0/layers": 12.0, "0/parameters": 109.5e6, "0/bytes": 438e6, "1/layers": 6.0,
        "1/parameters": 67e6, "1/bytes": 268e6, "0/latency_ms": 20.0, "1/latency_ms": 10.0, "1/distill_seconds": 7200.0,
        "1/cpu/fp32/b1/l128/latency_ms_p50": 10.0, "chosen": 1.0,
    }  # fmt: skip
    ((header, rows),) = tabulate(done("bench", metrics, plan=True, tokens=1000))
    assert header[3:6] == ["latency, CPU fp32, batch 1, 128 tokens", "speed-up", "distill, 1,000 tokens"]
    assert rows == [
        ("12 layers, the teacher", "109.50 M", "438.0 MB", "20 ms", "", "", ""),
        ("6 layers", "67.00 M", "268.0 MB", "10 ms", "2.00 ×", "2 h 0 min", "← chosen"),
    ]


def test_json_is_the_record_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout is one JSON document, with no table and no suggestion."""
    shown = done("init", {"loss": 1.0}, {"head": "masked-lm"}, output=str(tmp_path), dry_run=False)
    show(shown, as_json=True)
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == (shown.to_json(), "")


def test_names_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup, emoji codes, escapes and line breaks in a metric's name, from a label in a file, are text."""
    metrics = {"0/answer/[red]x[b] :smile:": 1.0, "0/\x1b[31m\ny": 2.0}
    show(done("bench", metrics, models=["a"]), as_json=False)
    out = capsys.readouterr().out
    assert "[red]x[b] :smile:" in out
    assert r"\x1b[31m\ny" in out
    assert "\x1b" not in out
