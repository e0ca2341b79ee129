"""`eval`: score checkpoints on a task; compare them with a teacher and baselines, with confidence intervals."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation.agreement import measure_agreement
from distilkit.evaluation.retention import TEACHER, Result, compare
from distilkit.evaluation.scoring import score_checkpoint, score_file
from distilkit.files import UNWRITABLE, is_writable
from distilkit.options.tasks import EvalOptions
from distilkit.record import Record, baselines_by_prefix, record
from distilkit.tasks import labels
from distilkit.tasks.catalogue import Task, glue_average_tasks, resolve
from distilkit.tasks.rows import tasks_scored_on_test
from distilkit.training.devices import device


def evaluate(config: EvalOptions) -> Record:
    """Score every checkpoint and compare it with --against and --control; or score a SQuAD prediction file.

    With --agreement, also compare it with its teacher on unlabelled text (agreement.measure_agreement); --task is then
    optional. With several checkpoints, metric names start with the position of the checkpoint. Metrics of the teacher
    and the baselines start with `teacher/` and `control/`.
    """
    chosen = resolve(config) if config.task or not config.agreement else []
    agreed = measure_agreement(config) if config.agreement else {}
    if not chosen:
        return record("eval", config, agreed, device=str(device()))
    if config.predictions:
        return record("eval", config, score_file(chosen[0], config))
    models = {f"{place}/" if len(config.models) > 1 else "": name for place, name in enumerate(config.models)}
    baselines = {f"{label}/": name for label, name in baselines_by_prefix(config.control).items()}
    entries = {**models, **({TEACHER: config.against} if config.against else {}), **baselines}
    for name in entries.values() if len(chosen) > 1 else ():
        _check_directories(name, chosen)
    if chosen[0].name == "custom":
        _check_kinds(list(dict.fromkeys(entries.values())), chosen[0], config)
    if config.write_predictions:
        _make(config.write_predictions, [file for task in chosen for file in task.files])
    about = {name: " ".join(names) for name, names in glue_average_tasks(chosen).items()}
    about |= tasks_scored_on_test(chosen, config.data)
    scored: dict[str, Result] = {}  # each checkpoint once, even if it is also the teacher or a baseline
    for label, name in entries.items():
        if name not in scored:
            out = config.write_predictions if label in models else None
            scored[name] = score_checkpoint(name, chosen, config, out)
    results = {label: scored[name] for label, name in entries.items()}
    scores = {label + name: value for label, result in results.items() for name, value in result.scores.items()}
    if config.against:
        scores |= compare(results, chosen, config.seed, [*models], [*baselines])
    return record("eval", config, scores | agreed, device=str(device()), **about)


def _check_directories(name: str, chosen: Sequence[Task]) -> None:
    """Raise DistilkitError if a directory lacks some tasks, because averages over different tasks are not
    comparable.
    """
    lacking = [task.name for task in chosen if not (Path(name) / task.name).is_dir()]
    if Path(name).is_dir() and lacking:
        raise DistilkitError(
            f"'{name}' has no model for {', '.join(lacking)}, so its average would not be comparable: "
            "fine-tune them too, or score single tasks"
        )


def _check_kinds(names: Sequence[str], task: Task, config: EvalOptions) -> None:
    """Raise DistilkitError if models of a custom task were trained for different label types."""
    kinds = {name: labels.labels_from_model(task, checkpoint.open_config(name), config.kind).kind for name in names}
    for name in names:
        if kinds[name] != kinds[names[0]]:
            both = f"'{names[0]}' is for {kinds[names[0]]}, but '{name}' for {kinds[name]}"
            raise DistilkitError(f"{both}: give models of one kind, or --kind")


def _make(directory: Path, files: Sequence[str]) -> None:
    """Create the directory of --write-predictions; check that files can be written and that none would be replaced."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not is_writable(directory):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise DistilkitError(
            f"cannot write --write-predictions '{directory}' ({error.strerror}): choose another"
        ) from None
    for file in files:
        if (directory / file).exists():
            raise DistilkitError(f"--write-predictions '{directory / file}' already exists: choose another folder")
