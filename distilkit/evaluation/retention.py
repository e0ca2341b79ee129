"""Compare scores: retention of the teacher's score and differences to baselines, with confidence intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distilkit.evaluation.bootstrap import resample
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.predictions import Predictions
from distilkit.progress import warn
from distilkit.tasks.catalogue import Task, averages, glue_average_tasks

TEACHER = "teacher/"  # prefix of the metrics of --against
INTERVAL_PERCENTILES = (2.5, 97.5)  # a 95 % confidence interval
Score = tuple[float, np.ndarray]  # on all rows, and on R bootstrap samples of them (R,)


@dataclass(frozen=True)
class Result:
    """A checkpoint's predictions and a hash of the rows of each scored split, by metric prefix, and its scores."""

    predictions: dict[str, Predictions]
    scores: dict[str, float]
    rows: dict[str, str] = field(default_factory=dict)


def compare(
    results: Mapping[str, Result], chosen: Sequence[Task], seed: int, models: Sequence[str], baselines: Sequence[str]
) -> dict[str, float]:
    """Compare models and baselines with the teacher, and models with baselines, on the same bootstrap samples.

    `models` and `baselines` are keys of `results`; the teacher's key is TEACHER.
    """
    scores = bootstrap_scores(results, chosen, seed)
    found: dict[str, float] = {}
    for label in (*models, *baselines):
        retained = retention(scores[label], scores[TEACHER])
        found |= {label + name: value for name, value in retained.items()}
    for label in models:
        for other in (TEACHER, *baselines):
            differing = differences(scores[label], scores[other], other.rstrip("/"))
            found |= {label + name: value for name, value in differing.items()}
    warn_if_equal(results, [*models, *baselines])
    return found


def warn_if_equal(results: Mapping[str, Result], others: Sequence[str]) -> None:
    """Warn about models whose predictions equal the teacher's: their intervals have no width, on few rows too."""
    for prefix, theirs in results[TEACHER].predictions.items():
        for label in others:
            mine = results[label].predictions[prefix]
            if not (isinstance(mine, LabelPredictions) and isinstance(theirs, LabelPredictions)):
                continue
            if np.array_equal(mine.predicted, theirs.predicted):
                number = label.rstrip("/")
                whose = f"model {number}" if number.isdigit() else number or "the student"
                warn(
                    f"{whose} and the teacher predict the same label on each of the {len(mine.predicted):,} rows of "
                    f"{prefix}, so the intervals have no width: score more rows"
                )


def bootstrap_scores(results: Mapping[str, Result], chosen: Sequence[Task], seed: int) -> dict[str, dict[str, Score]]:
    """Return {model: {subject: score on all rows and on the samples}}.

    A subject is the prefix of a split for its headline metric, prefix/metric for its other metrics, and `glue` and
    `glue_without_wnli` for the averages.
    """
    samples: dict[str, dict[str, Any]] = {label: {} for label in results}
    for prefix in next(iter(results.values())).predictions:
        each = resample([result.predictions[prefix] for result in results.values()], prefix, seed)
        for label, values in zip(results, each, strict=True):
            samples[label] |= {f"{prefix}/{metric}": array for metric, array in values.items()}
    names = {
        f"{prefix}/{metric}": f"{prefix}/{metric}" if number else prefix
        for task in chosen
        for prefix, found in next(iter(results.values())).predictions.items()
        if found.task.name == task.name
        for number, metric in enumerate(found.task.metrics)
    } | {name: name.replace("/average", "") for name in glue_average_tasks(chosen)}
    return {
        label: {
            subject: (results[label].scores[name], (samples[label] | averages(samples[label], chosen))[name])
            for name, subject in names.items()
        }
        for label in results
    }


def retention(student: Mapping[str, Score], teacher: Mapping[str, Score]) -> dict[str, float]:
    """Return retention/<subject>, the student's score divided by the teacher's, with …/low and …/high.

    Omit it, with a warning, if the teacher's score is 0 or less. Omit only the interval if that happens in a sample.
    """
    found: dict[str, float] = {}
    for subject, (mine, my_samples) in student.items():
        theirs, their_samples = teacher[subject]
        if theirs <= 0:
            warn(f"no retention/{subject}: the teacher's score is {theirs:.3g}")
            continue
        name = f"retention/{subject}"
        found[name] = mine / theirs
        if (their_samples > 0).all():
            found |= _interval(name, my_samples / their_samples)
        else:
            warn(f"no confidence interval for {name}: the teacher's score is not significantly above 0")
    return found


def differences(student: Mapping[str, Score], other: Mapping[str, Score], label: str) -> dict[str, float]:
    """Return difference/<subject>/<label>, the student's score minus the other's, with …/low and …/high."""
    found: dict[str, float] = {}
    for subject, (mine, my_samples) in student.items():
        theirs, their_samples = other[subject]
        name = f"difference/{subject}/{label}"
        found |= {name: mine - theirs} | _interval(name, my_samples - their_samples)
    return found


def _interval(name: str, samples: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(samples, INTERVAL_PERCENTILES)
    return {f"{name}/low": float(low), f"{name}/high": float(high)}
