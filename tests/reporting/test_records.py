"""The records of eval and bench, and train.jsonl, as a report reads them."""

from pathlib import Path

import pytest

from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
from distilkit.progress import level
from distilkit.record import Record, json_text, record
from distilkit.reporting.records import eval_and_bench_records, metrics_of, models_by_prefix, same_model
from distilkit.training.log import read_log


def test_unreadable_lines_of_train_jsonl_are_skipped_with_a_warning(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a line of a killed run and lines that are not JSON objects are counted; the others are used."""
    path = chain / "student/train.jsonl"
    path.write_text(path.read_text() + '{nonsense}\n[1, 2]\n\n{"text": "a row", "label": 1}\n{"step": 4, "lo')
    assert [line["step"] for line in read_log(path.parent)] == [1, 2, 2, 3, 3]
    assert f"'{path}' has 3 unreadable lines" in capsys.readouterr().err
    assert read_log(chain / "extracted") == []


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    """The error names the file, and asks for no command that would write over it."""
    (tmp_path / "bench.json").write_text("[1, 2")
    with pytest.raises(DistilkitError, match=r"bench\.json' is not a record .*: delete it, or give it another name$"):
        eval_and_bench_records(tmp_path)


@pytest.mark.parametrize("text", ['{"eval_loss": 0.3}', "[1, 2]", "7"])
def test_a_file_of_another_program_is_left_out(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As the Trainer of transformers writes eval_results.json: one note names it, and the other records are read."""
    (tmp_path / "eval_results.json").write_text(text)
    (tmp_path / "eval.json").write_text(json_text(EVALUATED.to_json()))
    with level(quiet=False):
        assert [found.metrics for found in eval_and_bench_records(tmp_path)] == [EVALUATED.metrics]
        eval_and_bench_records(tmp_path)
    assert capsys.readouterr().err.count("eval_results.json' is not a record of distilkit: it is left out") == 1


@pytest.mark.parametrize(
    ("place", "named", "same"),
    [
        ("/a/student", "/a/student", True),
        ("/b/student", "/gone/student", True),  # moved
        ("/b/student", "/gone/teacher", False),
        ("/b/student/sst2", "/gone/teacher/sst2", False),  # the task's name alone does not identify a model
        ("/b/student", "/b/student/sst2", True),  # a part of it
        ("org/model", "org/model", True),
        ("org/model", "other/model", False),
    ],
)
def test_names_are_matched_with_locations(place: str, named: str, same: bool) -> None:
    """A name means a model if it is its path, the path it had before it moved, or a part of it."""
    assert same_model(place, named) is same


EVALUATED: Record = record(
    "eval",
    EvalOptions(models=("org/a",), against="org/t", control=("org/b", "org/c"), task="sst2"),
    {
        "sst2/accuracy": 0.8, "retention/sst2": 0.9, "teacher/sst2/accuracy": 0.85, "control-0/sst2/accuracy": 0.7,
        "control-1/sst2/accuracy": 0.6, "difference/sst2/control-1": 0.2,
    },
)  # fmt: skip


def test_metrics_are_shared_out_by_their_prefix() -> None:
    """One model has none; the teacher and each baseline have their own."""
    assert models_by_prefix(EVALUATED) == {
        "": "org/a", "teacher/": "org/t", "control-0/": "org/b", "control-1/": "org/c",
    }  # fmt: skip
    assert metrics_of(EVALUATED, "org/a") == {
        "sst2/accuracy": 0.8, "retention/sst2": 0.9, "difference/sst2/control-1": 0.2,
    }  # fmt: skip
    assert metrics_of(EVALUATED, "org/t") == {"sst2/accuracy": 0.85}
    assert metrics_of(EVALUATED, "org/c") == {"sst2/accuracy": 0.6}
