"""Compare the speed of fine-tuning with transformers' Trainer: same model, rows, batches, padding and optimizer.

    python examples/benchmarks/finetune_speed.py MODEL DATA [ROWS] [ROUNDS]

DATA is a folder with SST-2's rows, as `--data` reads them. Each contestant trains one epoch of ROWS rows in batches of
32, padded to the longest row of the batch, with fused AdamW, a linear schedule, gradient norm 1, fp32, losses logged
every 10 updates, no evaluation, no output. Each trains once with rows in random order and once with rows of similar
length in a batch. All four runs alternate, in reversed order every other round, and ratios compare runs of the same
round. Tokens do not include padding. Seconds are those of the training call. Processor seconds are given too, because
other work on the machine hardly changes them.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from distilkit.commands.finetune_inputs import TrainingInputs, encode, open_student
from distilkit.data.batches import Batches
from distilkit.distillation.task_objective import TaskLoss
from distilkit.encoders import checkpoint
from distilkit.options.finetune import FinetuneOptions
from distilkit.tasks import encoding
from distilkit.tasks.catalogue import TASKS, with_task_defaults
from distilkit.tasks.rows import read_rows
from distilkit.tasks.schedule import Schedule, with_schedule
from distilkit.training.loop import train

SST2 = TASKS["sst2"]
SCHEDULE = Schedule(lr=2e-5, epochs=1.0, warmup=0.06)
Times = tuple[float, float]  # wall-clock seconds and processor seconds


def now() -> Times:
    """Return the current time of both clocks."""
    return time.perf_counter(), time.process_time()


def run_distilkit(options: FinetuneOptions, inputs: TrainingInputs, *, grouped: bool) -> Times:
    """Train with distilkit."""
    student = open_student(SST2, options)
    lengths = encoding.lengths(inputs.rows) if grouped else None
    collate = encoding.collator(inputs.tokenizer)
    with tempfile.TemporaryDirectory() as out:
        started = now()
        batches = Batches(inputs.rows, collate, batch_size=options.batch_size, seed=options.seed, lengths=lengths)
        train(TaskLoss(student, "classification", inputs.input_names), batches, options, Path(out))
        return now()[0] - started[0], now()[1] - started[1]


def run_trainer(options: FinetuneOptions, inputs: TrainingInputs, *, grouped: bool) -> Times:
    """Train with transformers' Trainer."""
    student = open_student(SST2, options)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=options.batch_size,
            num_train_epochs=options.epochs,
            learning_rate=options.lr,
            warmup_steps=options.warmup,
            adam_beta2=options.adam_beta2,
            adam_epsilon=options.adam_epsilon,
            max_grad_norm=options.max_grad_norm,
            logging_steps=options.log_every,
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length" if grouped else "random",
            save_strategy="no",
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
            seed=options.seed,
        )
        started = now()
        Trainer(
            student, arguments, train_dataset=inputs.rows, data_collator=DataCollatorWithPadding(inputs.tokenizer)
        ).train()
        return now()[0] - started[0], now()[1] - started[1]


def load(options: FinetuneOptions, count: int) -> TrainingInputs:
    """Return `count` encoded rows, the same in every run."""
    rows: Dataset = read_rows(SST2, options.data, "train").shuffle(seed=0).select(range(count))
    student, tokenizer = open_student(SST2, options), checkpoint.open_tokenizer(options.model)
    names = encoding.input_names(student)
    encoded = encode(rows, SST2, tokenizer, names, options, student)
    return TrainingInputs(SST2, tokenizer, encoded, {}, names, SCHEDULE)


def main(model: str, data: str, count: str = "1280", rounds: str = "5") -> None:
    """Print tokens per second and the ratios as JSON."""
    options = FinetuneOptions(model=model, task="sst2", data=Path(data), output=Path("unused"))
    options = with_schedule(with_task_defaults(SST2, options), SCHEDULE)
    inputs = load(options, int(count))
    tokens = sum(encoding.lengths(inputs.rows))
    ways: dict[str, Callable[[], Times]] = {
        "distilkit": lambda: run_distilkit(options, inputs, grouped=False),
        "trainer": lambda: run_trainer(options, inputs, grouped=False),
        "distilkit, grouped": lambda: run_distilkit(options, inputs, grouped=True),
        "trainer, grouped": lambda: run_trainer(options, inputs, grouped=True),
    }
    for way in ways.values():  # warm-up
        way()
    taken: dict[str, list[Times]] = {name: [] for name in ways}
    for number in range(int(rounds)):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            taken[name].append(ways[name]())
            print(f"round {number}: {name} {taken[name][-1]}", file=sys.stderr, flush=True)
    result: dict[str, object] = {"rows": int(count), "tokens": tokens}
    for place, clock in enumerate(("seconds", "processor seconds")):
        times = {name: [run[place] for run in runs] for name, runs in taken.items()}
        result[f"tokens a {clock[:-1]}"] = {name: round(tokens / statistics.median(t), 1) for name, t in times.items()}
        for one, other in (
            ("distilkit", "trainer"),
            ("distilkit, grouped", "trainer, grouped"),
            ("distilkit, grouped", "trainer"),
        ):
            ratios = [b / a for a, b in zip(times[one], times[other], strict=True)]
            result[f"{clock}: {one} over {other}"] = round(statistics.median(ratios), 3)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
