"""Types of distilkit's functions. Generated from the options by `make docs`; do not edit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from distilkit.distillation.text_objective import Distillation as Distillation
from distilkit.encoders.layer_selection import spread as spread
from distilkit.encoders.layers import extract as extract
from distilkit.errors import DistilkitError as DistilkitError
from distilkit.record import Record as Record
from distilkit.training.loop import train as train

__version__: str

def init(
    teacher: str | Path,
    *,
    output: str | Path,
    corpus: str | Path | None = ...,
    layers: int | None = ...,
    keep: Sequence[int] | int | None = ...,
    strategy: Literal["spread", "alternate", "first", "last", "search"] = ...,
    architecture: Literal["same", "distilbert"] = ...,
    vocabulary: str | Path | None = ...,
    random: bool = ...,
    dry_run: bool = ...,
    no_verify: bool = ...,
    allow_pickle: bool = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Extract a student from a teacher by keeping some of its layers."""

def distill(
    student: str | Path,
    *,
    corpus: str | Path,
    output: str | Path,
    heldout: str | Path | None = ...,
    teacher: str | Path | None = ...,
    text: str | None = ...,
    objective: Literal["triple", "embedding", "soft-targets", "hidden", "attention", "minilm", "mlm"] | None = ...,
    alpha_ce: float | None = ...,
    alpha_mlm: float | None = ...,
    alpha_cos: float | None = ...,
    alpha_embedding: float | None = ...,
    alpha_similarity: float | None = ...,
    alpha_hidden: float | None = ...,
    alpha_attention: float | None = ...,
    alpha_relation: float | None = ...,
    ce_until: float = ...,
    ce_positions: Literal["all", "masked"] = ...,
    mask_probability: float = ...,
    seq_length: int | None = ...,
    split: Literal["sentences", "lines", "documents"] | None = ...,
    hidden_loss: Literal["mse", "cosine"] = ...,
    layer_map: Sequence[int] | int | None = ...,
    temperature: float = ...,
    lr: float | None = ...,
    evaluate_every: int = ...,
    batch_size: int = ...,
    accumulate: int = ...,
    steps: int | None = ...,
    epochs: float = ...,
    head_lr: float | None = ...,
    warmup: float = ...,
    precision: Literal["fp32", "bf16", "fp16"] = ...,
    checkpoint_every: int = ...,
    resume: bool = ...,
    teacher_cache: str | Path | None = ...,
    cache_size: int = ...,
    cache_maskings: int = ...,
    streaming: bool = ...,
    projection: Literal["save", "drop"] = ...,
    packing: Literal["blocks", "documents"] = ...,
    plan: bool = ...,
    new_head: bool = ...,
    weight_decay: float = ...,
    adam_beta2: float = ...,
    adam_epsilon: float = ...,
    max_grad_norm: float = ...,
    compile: bool = ...,
    log_every: int = ...,
    log_with: Literal["tensorboard", "wandb", "trackio"] | None = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Train a student on plain text, against its teacher."""

def finetune(
    model: str | Path,
    *,
    output: str | Path,
    teacher: str | Path | None = ...,
    data: str | Path | None = ...,
    task: Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "glue", "squad", "squad_v2", "imdb", "custom"] | None,
    text: Sequence[str] | str | None = ...,
    label: str | None = ...,
    kind: Literal["classification", "multi-label", "regression"] | None = ...,
    max_length: int | None = ...,
    long: Literal["head", "head-tail", "windows"] | None = ...,
    alpha_ce: float = ...,
    alpha_task: float = ...,
    alpha_hidden: float = ...,
    alpha_attention: float = ...,
    hidden_loss: Literal["mse", "cosine"] = ...,
    layer_map: Sequence[int] | int | None = ...,
    temperature: float = ...,
    batch_size: int | None = ...,
    epochs: float | None = ...,
    lr: float | None = ...,
    warmup: float | None = ...,
    seeds: int = ...,
    keep: Literal["best", "last"] | None = ...,
    patience: int | None = ...,
    evaluate_every: int | None = ...,
    require: Sequence[str] | str = ...,
    accumulate: int = ...,
    steps: int | None = ...,
    head_lr: float | None = ...,
    precision: Literal["fp32", "bf16", "fp16"] = ...,
    checkpoint_every: int = ...,
    resume: bool = ...,
    stride: int | None = ...,
    n_best: int | None = ...,
    max_answer_length: int | None = ...,
    null_threshold: float | None = ...,
    adam_beta2: float = ...,
    adam_epsilon: float = ...,
    max_grad_norm: float = ...,
    weight_decay: float = ...,
    compile: bool = ...,
    log_every: int = ...,
    log_with: Literal["tensorboard", "wandb", "trackio"] | None = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Train a checkpoint on a labelled task, with or without a task teacher."""

def eval(
    *models: str | Path,
    write_predictions: str | Path | None = ...,
    data: str | Path | None = ...,
    task: Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "glue", "squad", "squad_v2", "imdb", "custom"] | None = ...,
    text: Sequence[str] | str | None = ...,
    label: str | None = ...,
    kind: Literal["classification", "multi-label", "regression"] | None = ...,
    max_length: int | None = ...,
    long: Literal["head", "head-tail", "windows"] | None = ...,
    against: str | Path | None = ...,
    control: Sequence[str] | str = ...,
    agreement: str | Path | None = ...,
    examples: str | Path | None = ...,
    plot: str | Path | None = ...,
    baseline: str | Path | None = ...,
    require: Sequence[str] | str = ...,
    predictions: str | Path | None = ...,
    null_odds: str | Path | None = ...,
    stride: int | None = ...,
    n_best: int | None = ...,
    max_answer_length: int | None = ...,
    null_threshold: float | None = ...,
    batch_size: int = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Score checkpoints on a task, and compare them with a teacher."""

def bench(
    *models: str | Path,
    devices: Sequence[Literal["cpu", "cuda"]] | Literal["cpu", "cuda"] = ...,
    batch_sizes: Sequence[int] | int = ...,
    seq_lengths: Sequence[int] | int = ...,
    precision: Literal["fp32", "bf16", "fp16"] = ...,
    threads: int | None = ...,
    runs: int = ...,
    require: Sequence[str] | str = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Measure parameters, size, latency, throughput and memory."""

def export(
    model: str | Path,
    *,
    output: str | Path,
    data: str | Path | None = ...,
    task: Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "glue", "squad", "squad_v2", "imdb", "custom"] | None = ...,
    text: Sequence[str] | str | None = ...,
    label: str | None = ...,
    kind: Literal["classification", "multi-label", "regression"] | None = ...,
    max_length: int | None = ...,
    long: Literal["head", "head-tail", "windows"] | None = ...,
    format: Literal["onnx", "openvino", "executorch"] = ...,
    int8: bool = ...,
    max_drop: float = ...,
    stride: int | None = ...,
    n_best: int | None = ...,
    max_answer_length: int | None = ...,
    null_threshold: float | None = ...,
    batch_size: int = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Export a checkpoint to another runtime, and check that it computes the same."""

def report(
    *directories: str | Path,
    output: str | Path,
    card: bool = ...,
    force: bool = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Make an HTML page, Markdown tables, plots and model cards."""

def demo(
    *,
    output: str | Path | None = ...,
    seed: int = ...,
    recipe: str | Path | None = ...,
    quiet: bool = ...,
    verbose: bool = ...,
) -> Record:
    """Run the whole chain offline, on the documentation that comes with Python."""

evaluate = eval
