"""Retention and differences against hand arithmetic; intervals against theory."""

import numpy as np
import pytest

from distilkit.evaluation import retention
from distilkit.evaluation.bootstrap import RESAMPLES
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.retention import Result
from distilkit.tasks.catalogue import GLUE, TASKS, Task, averages

SAMPLES = np.array([0.4, 0.5, 0.6, 0.7, 0.8])


def test_retention_is_a_share_with_an_interval() -> None:
    """Retention is the ratio of the scores; the interval is from percentiles of the samples' ratios."""
    found = retention.retention({"sst2": (0.6, SAMPLES)}, {"sst2": (0.8, 2 * SAMPLES)})
    assert found == pytest.approx({"retention/sst2": 0.75, "retention/sst2/low": 0.5, "retention/sst2/high": 0.5})


@pytest.mark.parametrize("teacher", [0.0, -0.1])
def test_retention_needs_a_positive_teacher_score(teacher: float) -> None:
    """There is no retention of a teacher's score of 0 or less."""
    assert retention.retention({"cola": (0.6, SAMPLES)}, {"cola": (teacher, SAMPLES)}) == {}


def test_no_interval_if_the_teacher_is_not_significantly_above_0(capsys: pytest.CaptureFixture[str]) -> None:
    """If the teacher's score is 0 or less in a sample, there is no interval, and a warning names the metric."""
    found = retention.retention({"cola": (0.1, SAMPLES)}, {"cola": (0.2, SAMPLES - 0.5)})
    assert found == {"retention/cola": 0.5}
    assert "retention/cola" in capsys.readouterr().err


def test_differences_are_paired() -> None:
    """A difference that is the same in every sample has an interval of width 0."""
    found = retention.differences({"rte": (0.6, SAMPLES)}, {"rte": (0.5, SAMPLES - 0.1)}, "control")
    names = ("difference/rte/control", "difference/rte/control/low", "difference/rte/control/high")
    assert found == pytest.approx(dict.fromkeys(names, 0.1))


def result(task: Task, predicted: np.ndarray, labels: np.ndarray) -> Result:
    mine = LabelPredictions(task, predicted, labels)
    return Result({task.name: mine}, {f"{task.name}/{name}": value for name, value in mine.score().items()})


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Half the interval of a paired difference of accuracies is 1.96 standard errors of a mean of +1, 0 and -1."""
    generator = np.random.default_rng(0)
    truth = generator.integers(2, size=2000)
    mine, theirs = (np.where(generator.random(2000) < right, truth, 1 - truth) for right in (0.8, 0.9))
    task = TASKS["sst2"]
    results = {"": result(task, mine, truth), "teacher/": result(task, theirs, truth)}
    found = retention.compare(results, [task], 42, [""], [])
    each = (mine == truth).astype(float) - (theirs == truth)
    error = 1.96 * each.std() / 2000**0.5
    middle = found["difference/sst2/teacher"]
    assert middle == pytest.approx(each.mean())
    assert found["difference/sst2/teacher/low"] == pytest.approx(middle - error, abs=0.1 * error)
    assert found["difference/sst2/teacher/high"] == pytest.approx(middle + error, abs=0.1 * error)


def test_every_metric_and_every_baseline_is_compared() -> None:
    """The headline metric has the task's name. Baselines get retention, models also differences."""
    truth, *predicted = np.random.default_rng(1).integers(2, size=(5, 60))
    task = TASKS["mrpc"]
    prefixes = ("", "teacher/", "control-0/", "control-1/")
    results = {prefix: result(task, one, truth) for prefix, one in zip(prefixes, predicted, strict=True)}
    found = retention.compare(results, [task], 1, [""], ["control-0/", "control-1/"])
    whole = {name for name in found if not name.endswith(("/low", "/high"))}
    assert whole == {
        *(f"{label}retention/mrpc{more}" for label in ("", "control-0/", "control-1/") for more in ("", "/accuracy")),
        *(
            f"difference/mrpc{more}/{other}"
            for other in ("teacher", "control-0", "control-1")
            for more in ("", "/accuracy")
        ),
    }
    assert {name + bound for name in whole for bound in ("", "/low", "/high")} == set(found)
    f1 = {label: one.scores["mrpc/f1"] for label, one in results.items()}
    assert found["retention/mrpc"] == pytest.approx(f1[""] / f1["teacher/"])
    assert found["difference/mrpc/control-1"] == pytest.approx(f1[""] - f1["control-1/"])


def test_the_average_has_retention_too() -> None:
    """retention/glue is the ratio of the averages, computed in each sample of all nine tasks."""
    generator = np.random.default_rng(2)
    results = {label: Result({}, {}) for label in ("", "teacher/")}
    for task in GLUE:
        truth = generator.integers(max(2, len(task.labels)), size=40)
        for label, right in (("", 0.8), ("teacher/", 0.9)):
            one = result(task, np.where(generator.random(40) < right, truth, (truth + 1) % 2), truth)
            results[label].predictions.update(one.predictions)
            results[label].scores.update(one.scores)
    for one in results.values():
        one.scores.update(averages(one.scores, GLUE))
    found = retention.compare(results, GLUE, 3, [""], [])
    student, teacher = (results[label].scores["glue/average"] for label in ("", "teacher/"))
    assert found["retention/glue"] == pytest.approx(student / teacher)
    assert found["retention/glue/low"] < found["retention/glue"] < found["retention/glue/high"]
    widths = {name: found[f"{name}/high"] - found[f"{name}/low"] for name in ("retention/glue", "retention/rte")}
    assert widths["retention/glue"] < widths["retention/rte"]  # nine tasks vary less than one
    assert {"retention/glue_without_wnli", "difference/glue/teacher"} <= set(found)
    assert RESAMPLES == 2000  # as docs/guide.md says


@pytest.mark.parametrize("changed", [0, 1])
def test_equal_predictions_are_said(changed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """An interval without width, because student and teacher predict the same, is a warning with the number of rows."""
    truth = np.arange(40) % 2
    theirs = np.where(np.arange(40) < 2, 1 - truth, truth)
    mine = np.where(np.arange(40) < 2 + changed, 1 - truth, truth)
    task = TASKS["sst2"]
    retention.compare({"": result(task, mine, truth), "teacher/": result(task, theirs, truth)}, [task], 0, [""], [])
    assert ("on each of the 40 rows of sst2" in capsys.readouterr().err) is not changed
