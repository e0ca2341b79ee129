"""How much of a teacher's score a student keeps, how far it is from a control, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilkit.evaluation.bootstrap import resample
from distilkit.evaluation.predictions import Said
from distilkit.progress import warn
from distilkit.tasks.catalogue import Task, averages, glue_average_tasks

TEACHER = "teacher/"  # how the metrics begin of what --against names

BOUNDS = (2.5, 97.5)  # percentiles: an interval of 95 %
Score = tuple[float, np.ndarray]  # on the rows, and on bootstrap samples of them (R,)


@dataclass(frozen=True)
class Result:
    """What a checkpoint says to each split that is scored, by metric prefix, and its scores."""

    said: dict[str, Said]
    scores: dict[str, float]


def compare(
    results: Mapping[str, Result], chosen: Sequence[Task], seed: int, models: Sequence[str], controls: Sequence[str]
) -> dict[str, float]:
    """Hold models against the teacher and the controls, all scored on the same bootstrap samples of the rows."""
    subjects = sampled(results, chosen, seed)
    found: dict[str, float] = {}
    for label in (*models, *controls):
        kept = retention(subjects[label], subjects[TEACHER])
        found |= {label + name: value for name, value in kept.items()}
    for label in models:
        for other in (TEACHER, *controls):
            apart = differences(subjects[label], subjects[other], other.rstrip("/"))
            found |= {label + name: value for name, value in apart.items()}
    return found


def sampled(results: Mapping[str, Result], chosen: Sequence[Task], seed: int) -> dict[str, dict[str, Score]]:
    """Return what can be compared: model -> subject -> score, and scores on the samples.

    A subject is a split's prefix for the headline metric, prefix/metric for the others, and `glue` and
    `glue_without_wnli` for the averages.
    """
    samples: dict[str, dict[str, Any]] = {label: {} for label in results}
    for prefix in next(iter(results.values())).said:
        each = resample([result.said[prefix] for result in results.values()], prefix, seed)
        for label, values in zip(results, each, strict=True):
            samples[label] |= {f"{prefix}/{metric}": array for metric, array in values.items()}
    names = {
        f"{prefix}/{metric}": f"{prefix}/{metric}" if place else prefix
        for task in chosen
        for prefix, one in next(iter(results.values())).said.items()
        if one.task.name == task.name
        for place, metric in enumerate(one.task.metrics)
    } | {name: name.replace("/average", "") for name in glue_average_tasks(chosen)}
    return {
        label: {
            subject: (results[label].scores[name], (samples[label] | averages(samples[label], chosen))[name])
            for name, subject in names.items()
        }
        for label in results
    }


def retention(student: Mapping[str, Score], teacher: Mapping[str, Score]) -> dict[str, float]:
    """Return retention/<subject>, the student's score as a share of the teacher's, with …/low and …/high.

    There is none where the teacher's score is 0 or less, and no interval where that happens in a sample.
    """
    found: dict[str, float] = {}
    for subject, (mine, my_samples) in student.items():
        theirs, their_samples = teacher[subject]
        if theirs <= 0:
            warn(f"there is no retention/{subject}: the teacher's score is {theirs:.3g}")
            continue
        name = f"retention/{subject}"
        found[name] = mine / theirs
        if (their_samples > 0).all():
            found |= _bounds(name, my_samples / their_samples)
        else:
            warn(f"{name} has no interval: the teacher's score is not surely above 0")
    return found


def differences(student: Mapping[str, Score], other: Mapping[str, Score], label: str) -> dict[str, float]:
    """Return difference/<subject>/<label>, the student's score less the other's, with …/low and …/high."""
    found: dict[str, float] = {}
    for subject, (mine, my_samples) in student.items():
        theirs, their_samples = other[subject]
        name = f"difference/{subject}/{label}"
        found |= {name: mine - theirs} | _bounds(name, my_samples - their_samples)
    return found


def _bounds(name: str, samples: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(samples, BOUNDS)
    return {f"{name}/low": float(low), f"{name}/high": float(high)}
