"""Options that every command has, and those of the training loop."""

from dataclasses import dataclass
from typing import Literal

from distilkit.options.declare import option


# eq and repr: what a dataclass would also write nobody asks for, and every --help would pay for it
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CommonOptions:
    seed: int = option("Seed of every random choice.", 42, min=0, max=2**32 - 1, panel="Common")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrainOptions(CommonOptions):
    batch_size: int = option("Sequences per device and forward pass.", 32, min=1, panel="Training")
    accumulate: int = option("Forward passes per update.", 1, min=1, panel="Training")
    steps: int | None = option("Updates to make, instead of --epochs.", None, min=1, panel="Training", instead="epochs")
    epochs: float = option("Passes over the training data.", 3.0, min=0, panel="Training")
    lr: float = option("Peak learning rate.", 5e-4, min=0, panel="Training")
    head_lr: float | None = option(
        "Peak learning rate of the head, where it should differ from the body's.", None, min=0, panel="Training"
    )
    warmup: float = option(
        "Share of the updates over which the rate rises; it then falls to 0.", 0.05, min=0, max=1, panel="Training"
    )
    weight_decay: float = option("AdamW's weight decay, not on biases and norms.", 0.0, min=0, panel="Training")
    adam_beta2: float = option("AdamW's second beta.", 0.98, min=0, max=1, panel="Training")
    adam_epsilon: float = option("AdamW's epsilon.", 1e-6, min=0, panel="Training")
    max_grad_norm: float = option("Clip the gradient to this norm; 0: not at all.", 5.0, min=0, panel="Training")
    precision: Literal["fp32", "bf16", "fp16"] = option("Precision of the matrix work.", "fp32", panel="Training")
    compile: bool = option("Compile the models with torch.compile.", False, panel="Training")
    log_every: int = option("Updates between two readings of the losses.", 10, min=1, panel="Training")
    log_with: Literal["tensorboard", "wandb", "trackio"] | None = option(
        "Hand what train.jsonl gets to a tracker as well; TensorBoard's files are in DIR/tensorboard.",
        None,
        panel="Training",
    )
    checkpoint_every: int = option("Updates between two checkpoints.", 500, min=1, panel="Training")
    resume: bool = option(
        "Go on from the newest checkpoint in the output directory; start where there is none.", False, panel="Training"
    )
