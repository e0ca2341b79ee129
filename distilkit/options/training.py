"""Options that every command has, and those of the training loop."""

from dataclasses import dataclass
from typing import Literal

from distilkit.options.declare import Options
from distilkit.options.spec import option


# Nothing compares or prints options, and generating __eq__ and __repr__ would slow every --help.
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CommonOptions(Options, panel="Common"):
    seed: int = option("Seed of every random choice.", 42, min=0, max=2**32 - 1)
    json: bool = option("Print exactly one JSON document, the record, on stdout.", False, recorded=False)
    recipe: str | None = option(
        "Take options from a shipped recipe or a TOML file.", None, metavar="NAME|FILE", is_path=True, recorded=False
    )
    quiet: bool = option("Show no progress and no notes, only warnings and errors.", False, short="-q", recorded=False)
    verbose: bool = option(
        "Also show the messages of libraries, and the original error behind an error line.",
        False,
        short="-v",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CompileOptions(CommonOptions, panel="Advanced"):
    compile: bool = option("Compile the models with torch.compile.", False)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrainOptions(CompileOptions, panel="Training"):
    batch_size: int = option("Sequences per device and forward pass.", 32, min=1, max=2**20)
    accumulate: int = option("Forward passes per update.", 1, min=1, max=2**20)
    steps: int | None = option("Number of updates, instead of --epochs.", None, min=1, max=2**40, replaces="epochs")
    epochs: float = option("Passes over the training data.", 3.0, min=0, max=1e6)
    lr: float = option("Peak learning rate.", 5e-4, min=0, max=1e30)
    head_lr: float | None = option("Peak learning rate of the head (default: --lr).", None, min=0, max=1e30)
    warmup: float = option(
        "Share of the updates in which the learning rate rises; it then falls linearly to 0.", 0.05, min=0, max=1
    )
    weight_decay: float = option(
        "AdamW's weight decay; biases and norms are exempt.", 0.0, min=0, max=1e3, panel="Advanced"
    )
    adam_beta2: float = option("AdamW's second beta.", 0.98, min=0, max=1 - 1e-9, panel="Advanced")
    adam_epsilon: float = option("AdamW's epsilon.", 1e-6, min=0, max=1, panel="Advanced")
    max_grad_norm: float = option(
        "Clip the gradient to this norm; 0 turns clipping off.", 5.0, min=0, max=1e9, panel="Advanced"
    )
    precision: Literal["fp32", "bf16", "fp16"] = option("Precision of matrix products.", "fp32")
    log_every: int = option(
        "Updates between two transfers of the losses from the device. train.jsonl has every update.",
        10,
        min=1,
        max=2**40,
        panel="Advanced",
    )
    log_with: Literal["tensorboard", "wandb", "trackio"] | None = option(
        "Also log to this experiment tracker (TensorBoard writes to DIR/tensorboard).", None, panel="Advanced"
    )
    checkpoint_every: int = option(
        "Updates between two run checkpoints, from which --resume continues.", 500, min=1, max=2**40
    )
    resume: bool = option(
        "Continue from the newest run checkpoint in the output directory; start a new run if there is none.", False
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TeacherOptions(CommonOptions, panel="Objective"):
    """How a student is compared with a teacher, on text or on a task."""

    hidden_loss: Literal["mse", "cosine"] = option(
        "Distance between hidden states: mean squared error, or cosine distance.", "mse"
    )
    layer_map: tuple[int, ...] | None = option(
        "Teacher layer, counted from 0, for each student layer whose hidden states or attention are compared. A single "
        "one is compared with the last student layer (default: evenly spread, last to last).",
        None,
        min=0,
        metavar="N,N,…",
    )
    temperature: float = option("Temperature of the soft targets.", 2.0, min=1e-3, max=1e6)
