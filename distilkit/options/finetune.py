"""Options of `finetune`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distilkit.options.spec import argument, option
from distilkit.options.tasks import TaskName, TaskOptions
from distilkit.options.training import TeacherOptions, TrainOptions

# None: the task's published setting, or what tasks/schedule.py derives from it
TASK_DEFAULTS: dict[str, Any] = {"batch_size": None, "epochs": None, "lr": None, "warmup": None}
FOR_TEACHER = ("alpha_ce", "alpha_task", "alpha_hidden", "alpha_attention", "hidden_loss", "layer_map", "temperature")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FinetuneOptions(
    TaskOptions,
    TeacherOptions,
    TrainOptions,
    panel="Training",
    defaults=TASK_DEFAULTS | {"adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0},
    helps={
        "batch_size": "Rows per device and forward pass (default: the task's).",
        "epochs": "Passes over the training rows (default: the task's; more for few rows).",
        "lr": "Peak learning rate (default: the task's; higher for encoders that are narrower than BERT-base).",
        "warmup": "Share of the updates in which the learning rate rises; it then falls linearly to 0 (default: 0.06; "
        "0.1 if --lr or --epochs are adapted).",
    },
):
    """Train a checkpoint on a labelled task, with or without a task teacher."""

    usage = (
        "distilkit finetune student --task sst2 -o student-sst2",
        "distilkit finetune student --task sst2 -o student2-sst2 --teacher teacher-sst2 --seeds 3",
        "distilkit finetune student --data tickets.csv -o student-tickets",
    )

    model: str = argument("Checkpoint to train: a directory or a hub id.", "MODEL")
    task: TaskName | None = option(
        "Task; glue stands for all nine GLUE tasks, custom for your own rows (default: custom, with --data).",
        None,
        required_unless="data",
        panel="Task",
    )
    output: Path = option(
        "Directory to write the trained model to.", short="-o", metavar="DIR", panel="Input and output"
    )
    teacher: str | None = option(
        "Teacher already trained on the task, to learn from in addition to the labels.",
        None,
        metavar="MODEL",
        is_path=True,
        panel="Input and output",
    )
    seeds: int = option(
        "Number of runs, with seeds --seed, --seed + 1, …; the run with the median score is kept.", 1, min=1, max=10**6
    )
    keep: Literal["best", "last"] | None = option(
        "Weights to keep: those with the best headline score, or those at the end of training (default: best; last if "
        "a test split is scored).",
        None,
    )
    patience: int | None = option(
        "Stop early after this many evaluations without a better headline score (default: never).",
        None,
        min=1,
        max=2**40,
    )
    evaluate_every: int | None = option(
        "Updates between two evaluations (default: one epoch; with --keep last and no --patience only at the end).",
        None,
        min=1,
        max=2**40,
    )
    require: tuple[str, ...] = option(
        "Gate such as 'sst2/accuracy>=0.90'; exit code 3 if it is not met. Repeatable.", ()
    )
    alpha_ce: float = option("Weight of the teacher's soft targets.", 0.5, min=0, max=1e9, panel="Objective")
    alpha_task: float = option(
        "Weight of the loss on the labels if there is a teacher.", 0.5, min=0, max=1e9, panel="Objective"
    )
    alpha_hidden: float = option(
        "Weight of the distance between hidden states.", 0.0, min=0, max=1e9, panel="Objective"
    )
    alpha_attention: float = option(
        "Weight of the divergence between attention maps.", 0.0, min=0, max=1e9, panel="Objective"
    )

    class_weights: Literal["none", "balanced"] = option(
        "Weight of each row in the loss on labels. balanced: all classes count the same, however many rows they have.",
        "none",
        panel="Objective",
    )

    def rules(self) -> Iterator[str]:
        if self.teacher is None:
            yield from self.unused(FOR_TEACHER, "needs a teacher: give one as --teacher, or remove it")
        if self.seed + self.seeds > 2**32:
            yield "--seeds counts past the largest seed, 4294967295: lower --seed or --seeds"
