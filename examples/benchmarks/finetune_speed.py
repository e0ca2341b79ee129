"""Time distilkit's fine-tuning against transformers' Trainer: the same model, rows, batches, padding and optimiser.

    python examples/benchmarks/finetune_speed.py MODEL DATA [ROWS] [ROUNDS]

DATA is a folder with SST-2's rows, as `--data` reads them. Each contestant trains one epoch of ROWS rows in batches of
32, padded to the longest row of the batch, AdamW (fused), linear schedule, gradients clipped to norm 1, fp32, losses
logged every 10 updates, no evaluation, nothing saved; in random order, and with rows of about the same length together.
All four take turns, the order turned round each time. Tokens are those that aren't padding, the same for all; seconds
are those of the training call, and processor seconds, which other work on the machine changes little, are beside them.
A ratio is of two runs of the same round.
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

from distilkit.commands.finetune_inputs import Job, encode, open_student
from distilkit.data.batches import Batches
from distilkit.distillation.task_objective import TaskLoss
from distilkit.encoders import checkpoint
from distilkit.options.tasks import FinetuneOptions
from distilkit.tasks import encoding
from distilkit.tasks.catalogue import TASKS, with_task_defaults
from distilkit.tasks.rows import read_rows
from distilkit.training.loop import train

SST2 = TASKS["sst2"]
Times = tuple[float, float]  # seconds by the clock, and by the processors


def now() -> Times:
    return time.perf_counter(), time.process_time()


def run_distilkit(config: FinetuneOptions, job: Job, *, grouped: bool) -> Times:
    """Train with distilkit."""
    student = open_student(SST2, config)
    lengths = encoding.lengths(job.rows) if grouped else None
    collate = encoding.collator(job.tokenizer)
    with tempfile.TemporaryDirectory() as out:
        started = now()
        batches = Batches(job.rows, collate, batch_size=config.batch_size, seed=config.seed, lengths=lengths)
        train(TaskLoss(student, "classification", job.inputs), batches, config, Path(out))
        return now()[0] - started[0], now()[1] - started[1]


def run_trainer(config: FinetuneOptions, job: Job, *, grouped: bool) -> Times:
    """Train with transformers' Trainer."""
    student = open_student(SST2, config)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=config.batch_size,
            num_train_epochs=config.epochs,
            learning_rate=config.lr,
            warmup_steps=config.warmup,
            adam_beta2=config.adam_beta2,
            adam_epsilon=config.adam_epsilon,
            max_grad_norm=config.max_grad_norm,
            logging_steps=config.log_every,
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length" if grouped else "random",
            save_strategy="no",
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
            seed=config.seed,
        )
        started = now()
        Trainer(
            student, arguments, train_dataset=job.rows, data_collator=DataCollatorWithPadding(job.tokenizer)
        ).train()
        return now()[0] - started[0], now()[1] - started[1]


def load(config: FinetuneOptions, count: int) -> Job:
    """Encode `count` rows, the same for all."""
    rows: Dataset = read_rows(SST2, config.data, "train").shuffle(seed=0).select(range(count))
    student, tokenizer = open_student(SST2, config), checkpoint.open_tokenizer(config.model)
    inputs = encoding.input_names(student)
    encoded = encode(rows, SST2, tokenizer, inputs, config, student)
    return Job(SST2, tokenizer, encoded, {}, inputs)


def main(model: str, data: str, count: str = "1280", rounds: str = "5") -> None:
    config = FinetuneOptions(model=model, task="sst2", data=Path(data), output=Path("unused"), epochs=1.0)
    config = with_task_defaults(SST2, config)
    job = load(config, int(count))
    tokens = sum(encoding.lengths(job.rows))
    ways: dict[str, Callable[[], Times]] = {
        "distilkit": lambda: run_distilkit(config, job, grouped=False),
        "trainer": lambda: run_trainer(config, job, grouped=False),
        "distilkit, grouped": lambda: run_distilkit(config, job, grouped=True),
        "trainer, grouped": lambda: run_trainer(config, job, grouped=True),
    }
    for way in ways.values():  # a warm-up each
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
