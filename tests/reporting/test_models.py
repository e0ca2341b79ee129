"""The models of a report: roles, names, metrics and scores from the records."""

import json
from pathlib import Path

import pytest
from records import save, write_model

from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.record import record
from distilkit.reporting.models import differences, labels, read, scores_of


def test_roles_follow_from_the_records(chain: Path) -> None:
    """Trained with a teacher: student. Trained by masked LM alone after init: baseline. Compared with: teacher."""
    results = read([str(chain)])
    assert {model.name: results.role(model) for model in results.models} == {
        "extracted": "extracted", "student": "student", "control": "baseline",
        "student-tuned": "student", "control-tuned": "baseline", "teacher-tuned": "teacher",
    }  # fmt: skip


def test_models_have_short_names_unless_they_clash() -> None:
    """Two directories with one name get more of their paths; a hub id stays whole."""
    assert labels(["/runs/a", "/runs/b", "org/model"]) == ["a", "b", "org/model"]
    assert labels(["/a/x/best", "/a/y/best", "/z"]) == ["x/best", "y/best", "z"]
    assert labels(["/a/x/best", "/b/x/best"]) == ["/a/x/best", "/b/x/best"]


def test_moved_task_checkpoints_are_matched_by_the_directory_above(tmp_path: Path) -> None:
    """A task's name does not tell a teacher from a student."""
    places = []
    for name, score in (("teacher", 0.9), ("student", 0.8)):
        tuned = FinetuneOptions(model="some/model", output=tmp_path / name / "sst2", task="sst2")
        write_model(tmp_path / name / "sst2", 10, [record("finetune", tuned, {"sst2/accuracy": score})])
        places.append(tmp_path / name / "sst2")
    timed = BenchOptions(models=("/gone/teacher/sst2", "/gone/student/sst2"))
    save(places[0] / "bench.json", record("bench", timed, {"0/speedup": 1.0, "1/speedup": 2.0}))
    assert [model.metrics["speedup"] for model in read([str(place) for place in places]).models] == [1.0, 2.0]


def test_models_moved_with_their_records_are_found(chain: Path, tmp_path: Path) -> None:
    """If the whole folder moves, the paths in the records are dead, and names decide."""
    chain.rename(tmp_path / "moved")
    results = read([str(tmp_path / "moved/student-tuned"), str(tmp_path / "moved")])
    assert results.models[0].metrics["speedup"] == 1.6


def test_records_may_be_in_a_directory_of_their_own(chain: Path, tmp_path: Path) -> None:
    """A directory with nothing but records of eval and bench is not a model."""
    (tmp_path / "found").mkdir()
    (chain / "bench.json").rename(tmp_path / "found/bench.json")
    results = read([str(chain / "student-tuned"), str(tmp_path / "found")])
    assert results.models[0].metrics["speedup"] == 1.6
    assert "found" not in [model.name for model in results.models]


def test_models_measured_beside_the_given_ones_are_included(chain: Path) -> None:
    """A bench record names a hub model; the report has its latency too."""
    bench = json.loads((chain / "bench.json").read_text())
    bench["config"]["models"][0] = "hub/teacher"
    (chain / "student-tuned/bench.json").write_text(json.dumps(bench))
    models = {model.name: model for model in read([str(chain / "student-tuned")]).models}
    assert models["hub/teacher"].metrics["cpu/fp32/b1/l64/latency_ms_p50"] == 8.0
    assert (models["student-tuned"].given, models["hub/teacher"].given) == (True, False)


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_difference_needs_both_ends_of_its_interval(chain: Path, end: str) -> None:
    """A record that lacks one of them, written by hand or by another program, has no difference to show."""
    [path] = (path for path in chain.rglob("eval*.json") if "difference/" in path.read_text())
    found = {}
    for place in ("before", "after"):
        results = read([str(chain)])
        [student] = (model for model in results.models if model.name == "student-tuned")
        found[place] = differences(results, student)
        written = json.loads(path.read_text())
        written["metrics"].pop(f"1/difference/mrpc/control/{end}", None)
        path.write_text(json.dumps(written))
    assert found == {"before": {("mrpc", "control-tuned"): (0.044, 0.004, 0.085)}, "after": {}}


def test_only_scores_are_scores(tmp_path: Path) -> None:
    """Ranges of losses, counts and agreement are metrics of a model, but not scores on a task."""
    others = {"loss/min": 0.1, "loss/max": 0.3, "kept_evaluation/max": 1.0, "agreement/kl": 0.2, "sst2/collapsed": 1.0}
    tuned = FinetuneOptions(model="some/model", output=tmp_path / "a", task="sst2", seeds=3)
    write_model(tmp_path / "a", 10, [record("finetune", tuned, {**others, "sst2/accuracy": 0.5})])
    assert [list(scores_of(model)) for model in read([str(tmp_path / "a")]).models] == [[("sst2", "accuracy")]]


def test_directories_without_records_are_refused(chain: Path, tmp_path: Path) -> None:
    """An empty directory and an absent one are errors that name them."""
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(DistilkitError, match=f"'{tmp_path / name}'"):
            read([str(chain), str(tmp_path / name)])
