"""Score a checkpoint on tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint
from distilkit.evaluation.predictions import Answers, Said, predict, read_answers
from distilkit.evaluation.retention import Result
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.progress import is_first_process, warn
from distilkit.record import COLLAPSED
from distilkit.tasks import encoding, labels
from distilkit.tasks.catalogue import HEADS, Task, averages, with_training_settings
from distilkit.tasks.rows import read_tests, read_validation


def score_file(task: Task, config: EvalOptions) -> dict[str, float]:
    """Score a published prediction file, without a model."""
    rows = read_validation(task, config.data)[task.name]
    golds = {row["id"]: row["answers"]["text"] for row in rows.select_columns(["id", "answers"])}
    answers = read_answers(task, golds, Path(str(config.predictions)), config.null_odds, config.null_threshold)
    if lacking := len(golds.keys() - answers.texts.keys()):
        warn(f"'{config.predictions}' lacks {lacking} of {len(golds)} questions, which count as wrong")
    return {f"{task.name}/{name}": value for name, value in answers.score().items() if name != COLLAPSED}


def score_checkpoint(name: str, chosen: Sequence[Task], config: EvalOptions, out: Path | None = None) -> Result:
    """Score a checkpoint on a task, or the directory name/<task> on each of several, with their averages.

    `out` is a directory for prediction files.
    """
    said: dict[str, Said] = {}
    scores: dict[str, float] = {}
    for task in chosen:
        place = name if len(chosen) == 1 else f"{name}/{task.name}"
        data = config.data / task.name if config.data and len(chosen) > 1 else config.data
        model = checkpoint.open_model(place, HEADS[task.kind])
        tokenizer = checkpoint.open_tokenizer(place, model)
        labelled = labels.labels_from_model(task, model.config, config.kind) if task.name == "custom" else task
        order = labels.label_order(labelled, model.config, place)
        splits = read_validation(labelled, data)
        tests = read_tests(task, data) if out else {}
        used = with_training_settings(task, config, place)
        encoding.warn_if_shortened(task, used, encoding.window_length(task, used, model))
        mine = {
            prefix: predict(model, tokenizer, labelled, rows, used, order=order, name=place)
            for prefix, rows in splits.items()
        }
        said, scores = said | mine, scores | scores_of(mine)
        if f"{task.name}/{COLLAPSED}" in scores:
            warn(f"'{place}' gives every row of {task.name} the same answer")
        if out and is_first_process():
            write(out, labelled, mine)
        for file, rows in tests.items():
            answer = predict(model, tokenizer, labelled, rows, used, order=order, name=place)
            numbers = rows["idx"][:] if "idx" in rows.column_names else range(len(rows))
            if out and not isinstance(answer, Answers) and is_first_process():
                answer.write(out, file, numbers)
    scores = {metric: value for metric, value in scores.items() if not metric.endswith(f"/{COLLAPSED}")}
    return Result(said, scores | averages(scores, chosen))


def write(out: Path, task: Task, said: Mapping[str, Said]) -> None:
    """Write what was said to the scored rows, but for GLUE's tasks, whose files are about the test rows."""
    for prefix, one in said.items():
        if isinstance(one, Answers):
            one.write(out)
        elif not task.tests:
            one.write(out, prefix, range(len(one.said)))


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    splits: dict[str, Dataset],
    config: EvalOptions | FinetuneOptions,
    *,
    order: list[int] | None = None,
    name: str = "the model",
) -> dict[str, float]:
    """Score a model on splits of a task, {metric prefix: rows}: {"mnli/accuracy": 0.8, …}, SQuAD's from 0 to 100.

    `{prefix}/collapsed` is there, and 1.0, where every row gets the same answer though not every row should.
    Otherwise as predict().
    """
    return scores_of(
        {
            prefix: predict(model, tokenizer, task, rows, config, order=order, name=name)
            for prefix, rows in splits.items()
        }
    )


def scores_of(said: Mapping[str, Said]) -> dict[str, float]:
    """Score what is said to each split, under the split's prefix."""
    return {f"{prefix}/{metric}": value for prefix, one in said.items() for metric, value in one.score().items()}


def headline(task: Task) -> str:
    """Return the name of a task's first metric."""
    return f"{task.name}/{task.metrics[0]}"
