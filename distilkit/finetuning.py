"""`finetune`: train a task head, on labels alone or beside a teacher that already knows the task."""

import shutil
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import set_seed
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit import checkpoint, evaluation, squad, task_data, tasks
from distilkit.config import FinetuneConfig
from distilkit.curve import draw_run
from distilkit.errors import DistilkitError
from distilkit.memory import shortage_named
from distilkit.objectives import TaskLoss
from distilkit.options import flag
from distilkit.record import Record, claim, config_json, read_biography, record, write_biography
from distilkit.snapshot import MAY_CHANGE, remove_snapshots
from distilkit.tasks import Task
from distilkit.tracker import check_tracker
from distilkit.training import Batches, train


@dataclass(frozen=True)
class Job:
    """What every seed of a fine-tuning run shares."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    rows: Dataset  # encoded, to train on
    splits: dict[str, Dataset]  # to score on
    inputs: tuple[str, ...]
    teacher: PreTrainedModel | None = None
    teacher_inputs: tuple[str, ...] = ()
    order: tuple[int, ...] = ()  # which of the teacher's outputs stands for each label


def finetune(config: FinetuneConfig) -> Record:
    """Train a checkpoint on a task, score it on the validation rows, and write it with its record.

    `--task glue` makes nine of them, each in its own directory under the output.
    """
    check_tracker(config.log_with)
    chosen = tasks.resolve(config)
    return finetune_task(chosen[0], config) if len(chosen) == 1 else finetune_all(chosen, config)


def finetune_all(chosen: list[Task], config: FinetuneConfig) -> Record:
    """Train a checkpoint on several tasks, each from the start, in OUTPUT/<task>; OUTPUT's record has the averages."""
    jobs = [_for_task(config, task) for task in chosen]
    with claim(config.output, resume=config.resume, keep="*/*") as out:
        for task, job in zip(chosen, jobs, strict=True):  # find out what is missing now, not a night later
            task_data.read(task, job.data, "train")
            task_data.read_validation(task, job.data)
            if job.teacher:
                checkpoint.open_config(job.teacher)
        records = [
            finished(job) or finetune_task(task, replace(job, resume=job.output.is_dir()))
            for task, job in zip(chosen, jobs, strict=True)
        ]
        prefixes = tuple(f"{prefix}/" for task in chosen for prefix, _ in task.splits)
        scores = {name: value for done in records for name, value in done.metrics.items() if name.startswith(prefixes)}
        done = record("finetune", config, scores | evaluation.averages(scores, chosen), **_device())
        write_biography(out, [*read_biography(config.model), done])
    remove_snapshots(out)  # last: killed before, it can still go on from them
    return done


def _for_task(config: FinetuneConfig, task: Task) -> FinetuneConfig:
    return replace(
        config,
        task=task.name,
        data=config.data / task.name if config.data else None,
        teacher=f"{config.teacher}/{task.name}" if config.teacher else None,
        output=config.output / task.name,
    )


def finetune_task(task: Task, config: FinetuneConfig) -> Record:
    """Train a checkpoint on one task with one seed or several."""
    with claim(config.output, resume=config.resume, keep="checkpoint-*[0-9]" if config.seeds == 1 else "*/*"):
        job = prepare(task, config)
        return run(job, config) if config.seeds == 1 else run_seeds(job, config)


def prepare(task: Task, config: FinetuneConfig) -> Job:
    """Read and check all that a run needs, the teacher included, and encode the rows to train on.

    Raises DistilkitError where the teacher has another vocabulary or other labels than the student.
    """
    rows = task_data.read(task, config.data, "train")
    if task.name == "custom":
        task = tasks.learn_labels(task, rows, str(config.data))
    splits = task_data.read_validation(task, config.data)
    student, tokenizer = open_student(task, config), checkpoint.open_tokenizer(config.model)
    inputs = tasks.input_names(student)
    if config.teacher is None:
        length = tasks.window_length(task, config, student)
        return Job(task, tokenizer, _encode(rows, task, tokenizer, inputs, length, config), splits, inputs)
    teacher = checkpoint.open_model(config.teacher, evaluation.HEADS[task.kind])
    if not checkpoint.same_vocabulary(tokenizer, checkpoint.open_tokenizer(config.teacher)):
        raise DistilkitError("--teacher has another vocabulary than the student: give one with the student's tokenizer")
    order = tasks.label_order(task, teacher.config, config.teacher)
    teacher_inputs = tasks.input_names(teacher)
    union = tuple(name for name in tasks.INPUTS if name in inputs + teacher_inputs)
    encoded = _encode(rows, task, tokenizer, union, tasks.window_length(task, config, student, teacher), config)
    return Job(task, tokenizer, encoded, splits, inputs, teacher, teacher_inputs, tuple(order))


def _encode(
    rows: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    inputs: tuple[str, ...],
    length: int,
    config: FinetuneConfig,
) -> Dataset:
    if task.kind == "span":
        return squad.encode(rows, tokenizer, inputs, length, config.stride, training=True)
    return tasks.encode(rows, task, tokenizer, inputs, length)


def open_student(task: Task, config: FinetuneConfig) -> PreTrainedModel:
    """Open the checkpoint with a head of the task's size, fresh unless it has one."""
    labels = task.labels or (("LABEL_0", "LABEL_1") if task.kind == "span" else ("LABEL_0",))
    changes: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: place for place, label in enumerate(labels)},
        "problem_type": "regression" if task.kind == "regression" else None,
    }
    return checkpoint.open_model(config.model, evaluation.HEADS[task.kind], new_head=True, **changes)


def run(job: Job, config: FinetuneConfig) -> Record:
    """Train with one seed, score, and write the model with its record."""
    out = config.output
    set_seed(config.seed)  # the fresh head's weights
    student = open_student(job.task, config)
    objective = TaskLoss(
        student,
        job.task.kind,
        job.inputs,
        teacher=job.teacher,
        teacher_inputs=job.teacher_inputs,
        order=job.order,
        alpha_task=config.alpha_task,
        alpha_ce=config.alpha_ce,
        temperature=config.temperature,
    )
    batches = Batches(
        job.rows,
        tasks.collator(job.tokenizer),
        batch_size=config.batch_size,
        seed=config.seed,
        lengths=[len(ids) for ids in job.rows["input_ids"]],
    )
    with shortage_named(config, out):
        totals = train(objective, batches, config, out, label=f"finetune {job.task.name}")
    draw_run(out)
    scores = evaluation.score(student, job.tokenizer, job.task, job.splits, config)
    checkpoint.save(student, job.tokenizer, out)
    metrics = scores | totals | {"parameters": float(student.num_parameters())}
    done = record("finetune", config, metrics, **_device())
    write_biography(out, [*read_biography(config.model), done])
    return done


def _device() -> dict[str, str]:
    return {"device": str(PartialState().device)}


def run_seeds(job: Job, config: FinetuneConfig) -> Record:
    """Train with several seeds, in seed-<n> each, and keep the one with the median headline score.

    Every metric is a median over the seeds, of an even number the lower one, with /min and /max beside it.
    """
    out, records = config.output, []
    for seed in range(config.seed, config.seed + config.seeds):
        one = replace(config, seed=seed, seeds=1, output=out / f"seed-{seed}")
        done = finished(one)
        if done is None:
            again = config.resume and one.output.is_dir()
            with claim(one.output, resume=again, keep="checkpoint-*[0-9]"):
                done = run(job, replace(one, resume=again))
        records.append(done)
    headline = evaluation.headline(job.task)
    middle = sorted(records, key=lambda done: done.metrics[headline])[(len(records) - 1) // 2]
    _promote(out / f"seed-{middle.config['seed']}", out)
    done = record("finetune", config, spread([entry.metrics for entry in records]), **_device())
    write_biography(out, [*read_biography(config.model), done])
    for seed in range(config.seed, config.seed + config.seeds):
        shutil.rmtree(out / f"seed-{seed}")
    return done


def spread(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of every metric over runs, a value that occurred, with its /min and /max."""
    metrics: dict[str, float] = {}
    for name in runs[0]:
        values = [one[name] for one in runs]
        metrics |= {name: statistics.median_low(values), f"{name}/min": min(values), f"{name}/max": max(values)}
    return metrics


def _promote(source: Path, out: Path) -> None:
    """Move a seed's files up. Its record stays behind, so that an interruption here can be resumed."""
    for path in sorted(source.iterdir()):
        if path.name != "distilkit.json":
            path.replace(out / path.name)


def finished(config: FinetuneConfig) -> Record | None:
    """Return the record of a run that was already finished under its output, None where it has to be made.

    Raises DistilkitError where it was made with other options.
    """
    records = read_biography(config.output)
    if not records:
        return None
    for name, value in config_json(config).items():
        before = records[-1].config.get(name)
        if name not in MAY_CHANGE and before != value:
            raise DistilkitError(
                f"{flag(name)} was {before} in '{config.output}', now {value}: --resume needs the same"
            )
    return records[-1]
