"""Retention and differences: hand arithmetic, and intervals where theory knows them."""

import numpy as np
import pytest

from distilkit.evaluation import retention
from distilkit.evaluation.bootstrap import RESAMPLES
from distilkit.evaluation.predictions import Predictions
from distilkit.evaluation.retention import Result
from distilkit.tasks.catalogue import GLUE, TASKS, Task, averages

SAMPLES = np.array([0.4, 0.5, 0.6, 0.7, 0.8])


def test_retention_is_a_share_with_an_interval() -> None:
    """The share of the scores, between percentiles of the shares of each sample."""
    found = retention.retention({"sst2": (0.6, SAMPLES)}, {"sst2": (0.8, 2 * SAMPLES)})
    assert found == pytest.approx({"retention/sst2": 0.75, "retention/sst2/low": 0.5, "retention/sst2/high": 0.5})


@pytest.mark.parametrize("teacher", [0.0, -0.1])
def test_retention_needs_a_teacher_that_knows_something(teacher: float) -> None:
    """Against a teacher's score of 0 or less there is no share to speak of."""
    assert retention.retention({"cola": (0.6, SAMPLES)}, {"cola": (teacher, SAMPLES)}) == {}


def test_no_interval_where_the_teacher_may_know_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A share of what is 0 in some samples has no bounds; that is said."""
    found = retention.retention({"cola": (0.1, SAMPLES)}, {"cola": (0.2, SAMPLES - 0.5)})
    assert found == {"retention/cola": 0.5}
    assert "retention/cola has no interval" in capsys.readouterr().err


def test_differences_are_paired() -> None:
    """A model that is better by the same in every sample is better for sure."""
    found = retention.differences({"rte": (0.6, SAMPLES)}, {"rte": (0.5, SAMPLES - 0.1)}, "control")
    names = ("difference/rte/control", "difference/rte/control/low", "difference/rte/control/high")
    assert found == pytest.approx(dict.fromkeys(names, 0.1))


def result(task: Task, said: np.ndarray, asked: np.ndarray) -> Result:
    mine = Predictions(task, said, asked)
    return Result({task.name: mine}, {f"{task.name}/{name}": value for name, value in mine.score().items()})


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Of a paired difference of accuracies: 1.96 standard errors of the mean of +1, 0 and -1 on either side."""
    generator = np.random.default_rng(0)
    asked = generator.integers(2, size=2000)
    mine, theirs = (np.where(generator.random(2000) < right, asked, 1 - asked) for right in (0.8, 0.9))
    task = TASKS["sst2"]
    results = {"": result(task, mine, asked), "teacher/": result(task, theirs, asked)}
    found = retention.compare(results, [task], 42, [""], [])
    each = (mine == asked).astype(float) - (theirs == asked)
    error = 1.96 * each.std() / 2000**0.5
    middle = found["difference/sst2/teacher"]
    assert middle == pytest.approx(each.mean())
    assert found["difference/sst2/teacher/low"] == pytest.approx(middle - error, abs=0.1 * error)
    assert found["difference/sst2/teacher/high"] == pytest.approx(middle + error, abs=0.1 * error)


def test_every_metric_of_a_task_and_every_control_is_compared() -> None:
    """The headline goes by the task's name, others by their own; a control has retention, the model a difference."""
    asked, *said = np.random.default_rng(1).integers(2, size=(5, 60))
    task = TASKS["mrpc"]
    labels = ("", "teacher/", "control-0/", "control-1/")
    results = {label: result(task, one, asked) for label, one in zip(labels, said, strict=True)}
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


def test_the_average_is_kept_as_one_share() -> None:
    """retention/glue is the share of the averages, in each sample of all nine tasks."""
    generator = np.random.default_rng(2)
    results = {label: Result({}, {}) for label in ("", "teacher/")}
    for task in GLUE:
        asked = generator.integers(max(2, len(task.labels)), size=40)
        for label, right in (("", 0.8), ("teacher/", 0.9)):
            one = result(task, np.where(generator.random(40) < right, asked, (asked + 1) % 2), asked)
            results[label].said.update(one.said)
            results[label].scores.update(one.scores)
    for one in results.values():
        one.scores.update(averages(one.scores, GLUE))
    found = retention.compare(results, GLUE, 3, [""], [])
    student, teacher = (results[label].scores["glue/average"] for label in ("", "teacher/"))
    assert found["retention/glue"] == pytest.approx(student / teacher)
    assert found["retention/glue/low"] < found["retention/glue"] < found["retention/glue/high"]
    widths = {name: found[f"{name}/high"] - found[f"{name}/low"] for name in ("retention/glue", "retention/rte")}
    assert widths["retention/glue"] < widths["retention/rte"]  # nine tasks say more than one
    assert {"retention/glue_without_wnli", "difference/glue/teacher"} <= set(found)
    assert RESAMPLES == 2000  # as docs/guide.md says
