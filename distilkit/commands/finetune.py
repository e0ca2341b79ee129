"""`finetune`: train a task head, on labels alone or also with a task teacher."""

import math
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import cast

from accelerate.utils import set_seed

from distilkit.commands.finetune_inputs import Job, open_student, prepare
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError, DivergedError
from distilkit.evaluation import scoring
from distilkit.evaluation.scoring import score
from distilkit.options.spec import flag
from distilkit.options.tasks import FinetuneOptions, TaskName
from distilkit.progress import warn
from distilkit.record import COLLAPSED, MetricName, Record, config_json, read_biography, record, write_biography
from distilkit.tasks.catalogue import Task, averages, glue_average_tasks, resolve, with_task_defaults
from distilkit.tasks.rows import read_rows, read_validation, scored_splits
from distilkit.training.devices import claim_once, device, is_main_process, state
from distilkit.training.learning_curve import draw_run
from distilkit.training.log import check_tracker
from distilkit.training.loop import train
from distilkit.training.memory import explain_out_of_memory, memory_suggestions
from distilkit.training.resume import CHANGEABLE, LEARNING_RATES, defaults, remove_run_checkpoints
from distilkit.training.stopping import EarlyStopping, stop_signal


def finetune(config: FinetuneOptions) -> Record:
    """Train a checkpoint on a task, score it on the validation rows, and write it with its record.

    `--task glue` trains nine models, each in its own directory under the output.
    """
    check_tracker(config.log_with)
    chosen = resolve(config)
    return finetune_task(chosen[0], settle(chosen[0], config)) if len(chosen) == 1 else finetune_all(chosen, config)


def settle(task: Task, config: FinetuneOptions) -> FinetuneOptions:
    """Fill in what was not given: the task's settings, and which weights to keep.

    The best weights are chosen by the score, so they are not kept by default if a test split is scored.
    """
    tests = "test" in scored_splits(task, config.data).values()
    return replace(with_task_defaults(task, config), keep=config.keep or ("last" if tests else "best"))


def finetune_all(chosen: list[Task], config: FinetuneOptions) -> Record:
    """Train a checkpoint on several tasks separately, in OUTPUT/<task>; OUTPUT's record has the averages.

    Raises DivergedError after the other tasks if one diverged: `--resume` accepts another learning rate for that one.
    """
    jobs = [settle(task, _for_task(config, task)) for task in chosen]
    with claim_once(config.output, resume=config.resume, keep="*/*") as out:
        for task, job in zip(chosen, jobs, strict=True):  # find missing data now, not after hours of training
            read_rows(task, job.data, "train")
            read_validation(task, job.data)
            if job.teacher:
                checkpoint.open_config(job.teacher)
        with stop_signal():  # a signal at the end of one task stops the next one
            scores, lost = dict[str, float](), list[str]()
            for task, job in zip(chosen, jobs, strict=True):
                try:
                    done = finished(job, CHANGEABLE | LEARNING_RATES)
                    done = done or finetune_task(task, replace(job, resume=job.output.is_dir()))
                except DivergedError as error:
                    warn(f"{task.name} diverged: {error}")
                    lost.append(task.name)
                    continue
                scores |= {name: value for name, value in done.metrics.items() if _is_score(task, name)}
                scores |= {f"{task.name}/{name}": 1.0 for name in done.metrics if name.startswith("seed-")}
        if lost:
            raise DivergedError(
                f"{', '.join(lost)} diverged: lower --lr and continue with --resume, which keeps the others"
            )
        names = {name: " ".join(over) for name, over in glue_average_tasks(chosen).items()}
        done = record("finetune", config, scores | averages(scores, chosen), **_device(), **names)
        if is_main_process():
            write_biography(out, [*read_biography(config.model), done])
    return done


def _is_score(task: Task, name: str) -> bool:
    return MetricName.parse(name).task in {prefix for prefix, _ in task.splits}


def _for_task(config: FinetuneOptions, task: Task) -> FinetuneOptions:
    name = cast("TaskName", task.name)
    return replace(
        config,
        task=name,
        data=config.data / task.name if config.data else None,
        teacher=f"{config.teacher}/{task.name}" if config.teacher else None,
        output=config.output / task.name,
    )


def finetune_task(task: Task, config: FinetuneOptions) -> Record:
    """Train a checkpoint on one task, with one seed or several."""
    _check_seeds(config)
    with claim_once(config.output, resume=config.resume, keep="checkpoint-*[0-9]" if config.seeds == 1 else "*/*"):
        job = prepare(task, config)
        if config.seeds == 1:
            return run(job, config)
        with stop_signal():  # a signal at the end of one seed stops the next one
            return run_seeds(job, config)


def _check_seeds(config: FinetuneOptions) -> None:
    """Raise DistilkitError if the run to resume had other seeds, whose results would be lost."""
    mine = {_of_seed(config, seed).name for seed in _seeds(config)} if config.seeds > 1 else set()
    others = sorted({path.name for path in config.output.glob("seed-*")} - mine)
    if config.resume and (others or (mine and (config.output / "run.json").exists())):
        was = f"has {others[0]}" if others else "is a run with one seed"
        raise DistilkitError(f"'{config.output}' {was}: --resume needs the same --seed and --seeds")


def _seeds(config: FinetuneOptions) -> range:
    return range(config.seed, config.seed + config.seeds)


def _of_seed(config: FinetuneOptions, seed: int) -> Path:
    return config.output / f"seed-{seed}"


def run(job: Job, config: FinetuneOptions) -> Record:
    """Train with one seed, score during training, and write the model with its record."""
    out = config.output
    set_seed(config.seed)  # initialises the new head
    student = open_student(job.task, config)
    early_stopping = EarlyStopping(
        student,
        lambda: score(student, job.tokenizer, job.task, job.splits, config, name=str(out)),
        scoring.headline_metric(job.task),
        keep=str(config.keep),
        patience=config.patience,
    )
    batches = job.batches(config)
    every = readings(config, batches.per_epoch)
    label = f"finetune {job.task.name}"
    objective = job.objective(student, config)
    less_memory = memory_suggestions(config, f"lower --max-length (now {config.max_length})")
    with explain_out_of_memory(less_memory, out):
        totals = train(
            objective, batches, config, out, early_stopping=early_stopping, evaluate_every=every, label=label
        )
    scores = early_stopping.restore()
    if COLLAPSED in _marks(scores):
        warn(f"{job.task.name} with seed {config.seed} collapsed: it predicts the same label for every row")
    own = {"kept_evaluation": float(early_stopping.kept), "parameters": float(student.num_parameters())}
    about = _device() | job.about
    done = record("finetune", config, scores | {k: v for k, v in totals.items() if "/" not in k} | own, **about)
    if is_main_process():
        checkpoint.save(student, job.tokenizer, out)
        draw_run(out)
        write_biography(out, [*read_biography(config.model), done])
        remove_run_checkpoints(out)  # last, so that a killed run can still be resumed
    return done


def readings(config: FinetuneOptions, per_epoch: int) -> int:
    """Return the updates between two evaluations, 0 for one at the end only."""
    if config.evaluate_every is None and config.keep == "last" and config.patience is None:
        return 0
    return config.evaluate_every or math.ceil(per_epoch / (config.accumulate * state().num_processes))


def _marks(scores: dict[str, float]) -> set[str]:
    return {MetricName.parse(name).metric for name in scores}


def _device() -> dict[str, str]:
    return {"device": str(device())}


def run_seeds(job: Job, config: FinetuneOptions) -> Record:
    """Train with several seeds, each in seed-<n>, and keep the run with the median headline score.

    Every metric is the median over seeds (for an even number, the lower one), with /min and /max beside it. A diverged
    seed has no scores; a collapsed one counts. Each is marked: seed-<n>/diverged or /collapsed.
    Raises DivergedError if all seeds diverged.
    """
    out, records, marks = config.output, [], {}
    for seed in _seeds(config):
        one = replace(config, seed=seed, seeds=1, output=_of_seed(config, seed))
        try:
            records.append(finished(one) or _run_one(job, replace(one, resume=config.resume and one.output.is_dir())))
        except DivergedError as error:
            warn(f"{job.task.name} with seed {seed} diverged: {error}")
            marks[f"seed-{seed}/diverged"] = 1.0
            continue
        if COLLAPSED in _marks(records[-1].metrics):
            marks[f"seed-{seed}/{COLLAPSED}"] = 1.0
    if not records:
        raise DivergedError(f"all {config.seeds} seeds diverged on {job.task.name}: lower --lr")
    headline = scoring.headline_metric(job.task)
    middle = sorted(records, key=lambda done: done.metrics[headline])[(len(records) - 1) // 2]
    about = _device() | job.about
    done = record("finetune", config, spread([entry.metrics for entry in records]) | marks, **about)
    if is_main_process():
        _promote(_of_seed(config, middle.config["seed"]), out)
        write_biography(out, [*read_biography(config.model), done])
        for seed in _seeds(config):
            shutil.rmtree(_of_seed(config, seed), ignore_errors=True)
    return done


def _run_one(job: Job, config: FinetuneOptions) -> Record:
    with claim_once(config.output, resume=config.resume, keep="checkpoint-*[0-9]"):
        return run(job, config)


def spread(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of every metric over runs, a value that occurred, with its /min and /max."""
    metrics: dict[str, float] = {}
    for name in runs[0]:
        values = [one[name] for one in runs if name in one]
        if len(values) == len(runs) and MetricName.parse(name).metric != COLLAPSED:
            metrics |= {name: statistics.median_low(values), f"{name}/min": min(values), f"{name}/max": max(values)}
    return metrics


def _promote(source: Path, out: Path) -> None:
    """Move a seed's files up. Its record stays, so that an interruption here can be resumed."""
    for path in sorted(source.iterdir()):
        if path.name != "distilkit.json":
            path.replace(out / path.name)


def finished(config: FinetuneOptions, may_change: set[str] = CHANGEABLE) -> Record | None:
    """Return the record of a run that is already finished in its output directory, None otherwise.

    Raises DistilkitError if it was made with other options, apart from those that may change.
    """
    records = read_biography(config.output)
    if not records:
        return None
    before = defaults(config) | records[-1].config
    for name, value in config_json(config).items():
        if name not in may_change and before[name] != value:
            raise DistilkitError(
                f"{flag(name)} was {before[name]} in '{config.output}', now {value}: --resume needs the same"
            )
    return records[-1]
