"""`finetune`: train a task head, on labels alone or also with a task teacher."""

import math
import shutil
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from accelerate.utils import set_seed
from transformers import PreTrainedModel

from distilkit.commands.finetune_inputs import TrainingInputs, check_known_gates, open_student, prepare
from distilkit.data.own_rows import with_own_rows
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError, DivergedError
from distilkit.evaluation.failures import failure_of, mark_failure
from distilkit.evaluation.scoring import headline_metric, score
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.spec import flag
from distilkit.options.tasks import TaskName
from distilkit.progress import say, waiting, warn
from distilkit.record import FAILURES, MetricName, Record, config_json, read_biography, record, write_biography
from distilkit.tasks.catalogue import Task, averages, glue_average_tasks, resolve
from distilkit.tasks.rows import read_rows, read_validation, scored_splits
from distilkit.tasks.schedule import with_schedule
from distilkit.tasks.settings import with_task_defaults
from distilkit.training.devices import claim_once, device, is_main_process, state
from distilkit.training.learning_curve import draw_run
from distilkit.training.log import check_tracker
from distilkit.training.loop import train
from distilkit.training.memory import explain_out_of_memory, memory_suggestions
from distilkit.training.resume import CHANGEABLE, LEARNING_RATES, defaults, remove_run_checkpoints
from distilkit.training.stopping import EarlyStopping, stop_signal


def finetune(options: FinetuneOptions) -> Record:
    """Train a checkpoint on a task, score it on the validation rows, and write it with its record.

    `--task glue` trains nine models, each in its own directory under the output.
    """
    check_tracker(options.log_with)
    given, options = options, with_own_rows(options)
    chosen = resolve(options)
    check_known_gates(chosen, options)
    if len(chosen) > 1:
        return finetune_all(chosen, options)
    return finetune_task(chosen[0], options, given)


def complete_options(task: Task, options: FinetuneOptions) -> FinetuneOptions:
    """Return the options with the task's default for every setting that was not given, and with --keep.

    The schedule is filled in later by with_schedule(), because it depends on the rows and the model.
    By default, --keep takes the weights of the best evaluation. If a test split is scored, it takes the last weights,
    because test scores must not select a model.
    """
    tests = "test" in scored_splits(task, options.data).values()
    return replace(
        options, keep=options.keep or ("last" if tests else "best"), **asdict(with_task_defaults(task, options))
    )


def finetune_all(chosen: list[Task], options: FinetuneOptions) -> Record:
    """Train a checkpoint on several tasks separately, in OUTPUT/<task>. OUTPUT's record has the averages.

    Raises DivergedError if a task diverged, after the other tasks. `--resume` accepts another learning rate for it.
    """
    runs = [(task, options_for_task(options, task)) for task in chosen]
    with claim_once(options.output, resume=options.resume, keep="*/*") as out:
        for task, own in runs:  # what is wrong is found now, not after hours of training
            complete_options(task, own)
            read_rows(task, own.data, "train")
            read_validation(task, own.data)
            if own.teacher:
                checkpoint.open_config(own.teacher)
        scores = train_each(runs)
        names = {name: " ".join(tasks) for name, tasks in glue_average_tasks(chosen).items()}
        done = record("finetune", options, scores | averages(scores, chosen), **_device(), **names)
        if is_main_process():
            write_biography(out, [*read_biography(options.model), done])
    return done


def options_for_task(options: FinetuneOptions, task: Task) -> FinetuneOptions:
    """Return the options of one task of several: its data, teacher and output are in subdirectories."""
    return replace(
        options,
        task=cast("TaskName", task.name),
        data=options.data / task.name if options.data else None,
        teacher=f"{options.teacher}/{task.name}" if options.teacher else None,
        output=options.output / task.name,
    )


def train_each(runs: list[tuple[Task, FinetuneOptions]]) -> dict[str, float]:
    """Train each task that is not finished; return the scores of all.

    Raises DivergedError if a task diverged, after the other tasks.
    """
    scores, diverged = dict[str, float](), list[str]()
    with stop_signal():  # a signal at the end of one task stops the next one
        for task, options in runs:
            try:
                done = finished_record(options, CHANGEABLE | LEARNING_RATES)
                done = done or finetune_task(task, replace(options, resume=options.output.is_dir()))
            except DivergedError as error:
                warn(f"{task.title} diverged: {error}")
                diverged.append(task.name)
                continue
            scores |= {name: value for name, value in done.metrics.items() if _is_score(task, name)}
            scores |= {f"{task.name}/{name}": 1.0 for name in done.metrics if name.startswith("seed-")}
    if diverged:
        raise DivergedError(
            f"{', '.join(diverged)} diverged: lower --lr and add --resume, which keeps the finished tasks"
        )
    return scores


def _is_score(task: Task, name: str) -> bool:
    return MetricName.parse(name).task in {prefix for prefix, _ in task.splits}


def finetune_task(task: Task, options: FinetuneOptions, given: FinetuneOptions | None = None) -> Record:
    """Train a checkpoint on one task, with one seed or several. `given` are the options before anything was guessed."""
    given, options = given or options, complete_options(task, options)
    check_same_seeds(options)
    keep = "checkpoint-*[0-9]" if options.seeds == 1 else "*/*"
    with claim_once(options.output, resume=options.resume, keep=keep):
        with waiting(f"reading rows, opening {' and '.join(filter(None, (options.model, options.teacher)))}"):
            inputs = replace(prepare(task, options), given=given)
        for line in inputs.choices():
            say(line)
        options = with_schedule(options, inputs.schedule)
        if options.seeds == 1:
            return train_seed(inputs, options)
        with stop_signal():  # a signal at the end of one seed stops the next one
            return train_seeds(inputs, options)


def check_same_seeds(options: FinetuneOptions) -> None:
    """Raise DistilkitError if the run to resume had other seeds, whose results would be lost."""
    mine = {_seed_directory(options, seed).name for seed in _seeds(options)} if options.seeds > 1 else set()
    others = sorted({path.name for path in options.output.glob("seed-*")} - mine)
    if options.resume and (others or (mine and (options.output / "run.json").exists())):
        was = f"has {others[0]}" if others else "is a run with one seed"
        raise DistilkitError(f"'{options.output}' {was}: --resume needs the same --seed and --seeds")


def _seeds(options: FinetuneOptions) -> range:
    return range(options.seed, options.seed + options.seeds)


def _seed_directory(options: FinetuneOptions, seed: int) -> Path:
    return options.output / f"seed-{seed}"


def train_seed(inputs: TrainingInputs, options: FinetuneOptions) -> Record:
    """Train with one seed, evaluate during training, and write the model with its record."""
    out, task = options.output, inputs.task
    set_seed(options.seed)  # a new head is initialised with it
    student = open_student(task, options)
    early_stopping = EarlyStopping(
        student,
        lambda: score(student, inputs.tokenizer, task, inputs.splits, inputs.settings, name=str(out)),
        headline_metric(task),
        keep=str(options.keep),
        patience=options.patience,
    )
    totals = train_student(student, inputs, options, early_stopping)
    scores = early_stopping.restore()
    scores |= mark_failure(task, inputs.splits[task.name], scores)
    if failure := failure_of(scores):
        warn(f"{task.title} with seed {options.seed} learned nothing: {advice(failure, options)}")
    own = {"kept_evaluation": float(early_stopping.kept), "parameters": float(student.num_parameters())}
    metrics = scores | {name: value for name, value in totals.items() if "/" not in name} | own
    done = record("finetune", options, metrics, given=inputs.given_to(options), **_device(), **inputs.about)
    if is_main_process():
        checkpoint.save(student, inputs.tokenizer, out)
        draw_run(out)
        write_biography(out, [*read_biography(options.model), done])
        remove_run_checkpoints(out)  # last, so that a killed run can still be resumed
    return done


def train_student(
    student: PreTrainedModel, inputs: TrainingInputs, options: FinetuneOptions, early_stopping: EarlyStopping
) -> dict[str, float]:
    """Train the student and return the metrics of the training."""
    batches = inputs.batches(options)
    every = evaluation_interval(options, batches.per_epoch)
    objective = inputs.objective(student, options)
    label = f"finetune {inputs.task.title}"
    less_memory = memory_suggestions(options, f"lower --max-length (now {options.max_length})")
    with explain_out_of_memory(less_memory, options.output):
        return train(
            objective, batches, options, options.output,
            early_stopping=early_stopping, evaluate_every=every, label=label,
        )  # fmt: skip


def evaluation_interval(options: FinetuneOptions, per_epoch: int) -> int:
    """Return the number of updates between two evaluations; 0 if only the end is evaluated.

    The default is an epoch, or the end if no evaluation before it could matter.
    """
    if options.evaluate_every is None and options.keep == "last" and options.patience is None:
        return 0
    return options.evaluate_every or math.ceil(per_epoch / (options.accumulate * state().num_processes))


def advice(failure: str, options: FinetuneOptions) -> str:
    """Say what a failed run did, and what to try."""
    longer = f"--steps {2 * options.steps}" if options.steps else f"--epochs {2 * options.epochs:g}"
    rates = f"--lr {3 * options.lr:.2g} or {options.lr / 3:.2g}"
    return (
        f"it {FAILURES[failure]}; try {longer}, {rates} (now {options.lr:g}), or another --seed; then check the labels"
    )


def _device() -> dict[str, str]:
    return {"device": str(device())}


def train_seeds(inputs: TrainingInputs, options: FinetuneOptions) -> Record:
    """Train with several seeds, each in seed-<n>, and keep the run with the median headline score.

    Every metric is the median over seeds (for an even number, the lower one), with /min and /max beside it. A diverged
    seed has no scores; a collapsed one counts. Each is marked: seed-<n>/diverged or /collapsed.
    Raises DivergedError if all seeds diverged.
    """
    task, records, marks = inputs.task, list[Record](), dict[str, float]()
    for seed in _seeds(options):
        own = replace(options, seed=seed, seeds=1, output=_seed_directory(options, seed))
        try:
            records.append(finished_record(own) or start_seed(inputs, own, resume=options.resume))
        except DivergedError as error:
            warn(f"{task.title} with seed {seed} diverged: {error}")
            marks[f"seed-{seed}/diverged"] = 1.0
            continue
        if failure := failure_of(records[-1].metrics):
            marks[f"seed-{seed}/{failure}"] = 1.0
    if not records:
        raise DivergedError(f"all {options.seeds} seeds diverged on {task.title}: lower --lr")
    headline = headline_metric(task)
    middle = sorted(records, key=lambda done: done.metrics[headline])[(len(records) - 1) // 2]
    metrics = summarise_seeds([done.metrics for done in records]) | marks
    done = record("finetune", options, metrics, given=inputs.given, **_device(), **inputs.about)
    if is_main_process():
        move_model(_seed_directory(options, middle.config["seed"]), options.output)
        write_biography(options.output, [*read_biography(options.model), done])
        for seed in _seeds(options):
            shutil.rmtree(_seed_directory(options, seed), ignore_errors=True)
    return done


def start_seed(inputs: TrainingInputs, options: FinetuneOptions, *, resume: bool) -> Record:
    """Train one seed of several in its own directory; with `resume`, continue it if it was started before."""
    options = replace(options, resume=resume and options.output.is_dir())
    with claim_once(options.output, resume=options.resume, keep="checkpoint-*[0-9]"):
        return train_seed(inputs, options)


def summarise_seeds(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the lower median of every metric over runs, which is the value of a run, with its /min and /max."""
    metrics: dict[str, float] = {}
    for name in runs[0]:
        values = [one[name] for one in runs if name in one]
        if name.split("/")[1:2] == ["confusion"]:  # medians cell by cell do not form the matrix of any run
            continue
        if len(values) == len(runs) and MetricName.parse(name).metric not in FAILURES:
            metrics |= {name: statistics.median_low(values), f"{name}/min": min(values), f"{name}/max": max(values)}
    return metrics


def move_model(source: Path, out: Path) -> None:
    """Move the files of a seed's run to `out`, except its record, so that an interruption here can be resumed."""
    for path in sorted(source.iterdir()):
        if path.name != "distilkit.json":
            path.replace(out / path.name)


def finished_record(options: FinetuneOptions, changeable: set[str] = CHANGEABLE) -> Record | None:
    """Return the record of a finished run in the output directory, None if there is none.

    Raises DistilkitError if that run had other options, apart from the changeable ones.
    """
    records = read_biography(options.output)
    if not records:
        return None
    before = defaults(options) | records[-1].config
    for name, value in config_json(options).items():
        left_open = value is None and name not in records[-1].given
        if name not in changeable and before[name] != value and not left_open:
            raise DistilkitError(
                f"{flag(name)} was {before[name]} in '{options.output}', now {value}: --resume needs the same value"
            )
    return records[-1]
