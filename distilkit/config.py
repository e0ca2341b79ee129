"""Every option of every command, declared once, and the recipes that fill them in."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distilkit.errors import DistilkitError
from distilkit.options import argument, inherit, option

RECIPES = Path(__file__).parent / "recipes"


# eq and repr: what a dataclass would also write nobody asks for, and every --help would pay for it
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CommonConfig:
    seed: int = option("Seed of every random choice.", 42, min=0, max=2**32 - 1, panel="Common")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InitConfig(CommonConfig):
    """Extract a student from a teacher by keeping some of its layers."""

    teacher: str = argument("Checkpoint to take layers from: a directory or a hub id.", "TEACHER")
    output: Path = option("Directory to write the student to.", short="-o", metavar="DIR")
    layers: int | None = option("How many layers the student has [default: half the teacher's].", None, min=1)
    keep: tuple[int, ...] | None = option(
        "The teacher's layers to keep, counted from 0, instead of --layers and --strategy.", None, metavar="N,N,…"
    )
    strategy: Literal["spread", "alternate", "first", "last", "search"] = option(
        "Which layers to keep: evenly spread from first to last (12 to 6: 0,2,4,7,9,11), "
        "every other one (0,2,4,6,8,10), the first, the last, or those that a search on --corpus finds closest to the "
        "teacher.",
        "spread",
    )
    corpus: str | None = option(
        "Text for --strategy search and --vocabulary N, read like distill's.", None, metavar="TEXT", place=True
    )
    architecture: Literal["same", "distilbert"] = option(
        "The student's architecture: the teacher's, or (from BERT) DistilBERT's, without token types and pooler.",
        "same",
    )
    vocabulary: str | None = option(
        "Keep only the tokens that this text uses, or the N commonest in --corpus, and what they rest on "
        "[default: all].",
        None,
        metavar="TEXT|N",
        place=True,
    )
    dry_run: bool = option("Show everything, the proof too, and write nothing.", False)
    no_verify: bool = option("Skip the proof that the saved student computes what it should.", False)
    allow_pickle: bool = option("Read pytorch_model.bin where there are no safetensors (tensors only).", False)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrainConfig(CommonConfig):
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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DistillConfig(TrainConfig):
    """Train a student against its teacher on plain text (Sanh et al. 2019: soft targets, masked LM, cosine)."""

    student: str = argument("Checkpoint to train: a directory or a hub id.", "STUDENT")
    corpus: str = option(
        "Text to train on: a file or folder of .txt or .jsonl (.gz too) or .parquet, or a hub data set name[:config].",
        metavar="TEXT",
        place=True,
    )
    output: Path = option("Directory to write the trained student to.", short="-o", metavar="DIR")
    heldout: str | None = option(
        "Text for the held-out loss, read like --corpus [default: 2 % of the corpus, at most 256 blocks].",
        None,
        metavar="TEXT",
        place=True,
    )
    streaming: bool = option(
        "Tokenise the text while it is read, with no copy of it on the disk (with --steps).", False
    )
    teacher: str | None = option(
        "Teacher checkpoint [default: the one that the student was made from].", None, metavar="MODEL", place=True
    )
    objective: Literal["triple", "hidden", "attention", "minilm", "mlm"] = option(
        "What to minimise: the triple loss, the distance of hidden states, of attention maps and hidden states, of "
        "query, key and value relations (MiniLMv2), or masked LM without a teacher. A name stands for weights: give "
        "others (--alpha-…) to mix them.",
        "triple",
    )
    alpha_ce: float | None = option(
        "Weight of the soft-target loss [default: 5 with triple].", None, min=0, panel="Objective"
    )
    alpha_mlm: float | None = option(
        "Weight of the masked-LM loss [default: 2 with triple, 1 with mlm].", None, min=0, panel="Objective"
    )
    alpha_cos: float | None = option(
        "Weight of the cosine loss between last hidden states [default: 1 with triple].", None, min=0, panel="Objective"
    )
    alpha_hidden: float | None = option(
        "Weight of the distance of hidden states [default: 1 with hidden and attention].",
        None,
        min=0,
        panel="Objective",
    )
    hidden_loss: Literal["mse", "cosine"] = option(
        "Distance of hidden states: mean squared, or by their angle alone.", "mse", panel="Objective"
    )
    alpha_attention: float | None = option(
        "Weight of the divergence of attention maps [default: 1 with attention].", None, min=0, panel="Objective"
    )
    alpha_relation: float | None = option(
        "Weight of the divergence of query, key and value relations [default: 1 with minilm].",
        None,
        min=0,
        panel="Objective",
    )
    layer_map: tuple[int, ...] | None = option(
        "The teacher's layer (from 0) for each of the student's, for hidden, attention and minilm, which uses the last "
        "pair [default: evenly spread, last to last]; a single number is for the last.",
        None,
        metavar="N,N,…",
        panel="Objective",
    )
    ce_until: float = option(
        "Share of the run after which only masked LM is left.", 1.0, min=0, max=1, panel="Objective"
    )
    temperature: float = option("Temperature of the soft targets.", 2.0, min=1e-3, panel="Objective")
    ce_positions: Literal["all", "masked"] = option(
        "Where the soft-target loss is taken: at every token or only at masked ones (faster).", "all", panel="Objective"
    )
    mask_probability: float = option("Share of tokens to predict.", 0.15, min=0.01, max=0.9, panel="Objective")
    seq_length: int = option("Tokens per packed block.", 128, min=8, panel="Objective")
    packing: Literal["blocks", "documents"] = option(
        "How text fills the blocks: documents end to end, or one document a block, cut where it is longer, padded to "
        "the longest of its batch.",
        "blocks",
        panel="Objective",
    )
    teacher_cache: Path | None = option(
        "Directory to keep the teacher's answers at masked tokens in: asked once, used by every later epoch and run "
        "(with --ce-positions masked --alpha-cos 0).",
        None,
        metavar="DIR",
        panel="Teacher cache",
    )
    cache_size: int = option("Sampled tokens kept per masked position.", 64, min=1, panel="Teacher cache")
    cache_maskings: int = option(
        "In how many ways each block is masked, epoch by epoch in turn.", 1, min=1, panel="Teacher cache"
    )
    evaluate_every: int = option("Updates between two readings of the held-out loss.", 200, min=1, panel="Training")
    plan: bool = option(
        "Say what the run would take (tokens, time, memory), measured on its first updates, and write nothing.", False
    )
    new_head: bool = option(
        "Let a checkpoint without a masked-LM head start with a fresh one (with --objective mlm).", False
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TaskConfig(CommonConfig):
    task: str | None = option(
        "cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, glue (all nine), squad, squad_v2, imdb or custom.",
        metavar="NAME",
    )
    data: Path | None = option(
        "Folder with train.* and validation.* (jsonl, tsv, csv, .gz too, or parquet), for --task custom also a hub "
        "data set name[:config] [default: the hub's data set].",
        None,
        metavar="DIR",
        place=True,
    )
    text: tuple[str, ...] | None = option("Text column or two, for --task custom.", None, metavar="COL[,COL]")
    label: str | None = option(
        "Label column, for --task custom: names, numbers or lists of names; or several columns of 0 and 1.",
        None,
        metavar="COL[,COL]",
    )
    kind: Literal["classification", "multi-label", "regression"] | None = option(
        "What --label says, for --task custom: a class, several, or a number [default: found from the rows; eval: as "
        "the model was trained].",
        None,
    )
    max_length: int | None = option(
        "Tokens per example or window [default: the task's; eval: as the model was trained].", None, min=8
    )
    long: Literal["head", "head-tail", "windows"] | None = option(
        "What is read of a text that is longer, where a row has one: its beginning, a quarter from its beginning and "
        "the rest from its end, or all of it, in windows whose logits are averaged [default: head; eval: as the model "
        "was trained].",
        None,
    )
    stride: int = option(
        "Tokens that two windows of a long context share (SQuAD) [default: 128; eval: as trained].",
        None,
        min=0,
        panel="SQuAD",
    )
    n_best: int = option(
        "Start and end positions that are combined (SQuAD) [default: 20; eval: as trained].", None, min=1, panel="SQuAD"
    )
    max_answer_length: int = option(
        "Longest answer in tokens (SQuAD) [default: 30; eval: as trained].", None, min=1, panel="SQuAD"
    )
    null_threshold: float = option(
        "Answer nothing where the null score exceeds the best span's by more than this (SQuAD 2.0) [default: 0; eval: "
        "as trained].",
        None,
        panel="SQuAD",
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FinetuneConfig(TaskConfig, TrainConfig):
    """Train a checkpoint on a labelled task, with or without a teacher that already knows it."""

    model: str = argument("Checkpoint to train: a directory or a hub id.", "MODEL")
    output: Path = option("Directory to write the trained model to.", short="-o", metavar="DIR")
    teacher: str | None = option(
        "Checkpoint already trained on the task, to learn from as well.", None, metavar="MODEL", place=True
    )
    seeds: int = option("Runs with seeds --seed, --seed + 1, …; the median one is kept.", 1, min=1)
    keep: Literal["best", "last"] | None = option(
        "Weights to keep: those of the evaluation with the best headline score, or the last ones [default: best; last "
        "where a test split is scored].",
        None,
    )
    patience: int | None = option(
        "Stop after so many evaluations without a better headline score [default: never].", None, min=1
    )
    evaluate_every: int | None = option(
        "Updates between two evaluations [default: an epoch's; with --keep last and no --patience only at the end].",
        None,
        min=1,
        panel="Training",
    )
    alpha_ce: float = option("Weight of the teacher's soft targets.", 0.5, min=0, panel="Objective")
    alpha_task: float = option("Weight of the labels, where a teacher is given.", 0.5, min=0, panel="Objective")
    alpha_hidden: float = inherit(DistillConfig, "alpha_hidden", 0.0, help="Weight of the distance of hidden states.")
    hidden_loss: Literal["mse", "cosine"] = inherit(DistillConfig, "hidden_loss", "mse")
    alpha_attention: float = inherit(
        DistillConfig, "alpha_attention", 0.0, help="Weight of the divergence of attention maps."
    )
    layer_map: tuple[int, ...] | None = inherit(
        DistillConfig,
        "layer_map",
        None,
        help="The teacher's layer (from 0) for each of the student's, for --alpha-hidden and --alpha-attention "
        "[default: evenly spread, last to last]; a single number is for the last.",
    )
    temperature: float = option("Temperature of the soft targets.", 2.0, min=1e-3, panel="Objective")
    # None until tasks.settle() puts the task's own value in its place (tasks.py: Task)
    batch_size: int = inherit(
        TrainConfig, "batch_size", None, help="Rows per device and forward pass [default: the task's]."
    )
    epochs: float = inherit(TrainConfig, "epochs", None, help="Passes over the training rows [default: the task's].")
    lr: float = inherit(TrainConfig, "lr", None, help="Peak learning rate [default: the task's].")
    warmup: float = inherit(TrainConfig, "warmup", 0.06)
    adam_beta2: float = inherit(TrainConfig, "adam_beta2", 0.999)
    adam_epsilon: float = inherit(TrainConfig, "adam_epsilon", 1e-8)
    max_grad_norm: float = inherit(TrainConfig, "max_grad_norm", 1.0)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvalConfig(TaskConfig):
    """Score checkpoints on a task and against a teacher, or compare them with it on text without labels."""

    models: tuple[str, ...] = argument(
        "Checkpoints to score: directories or hub ids, or, for --task glue, a directory of one a task.",
        "[MODEL…]",
        (),
    )
    task: str | None = inherit(TaskConfig, "task", None, unless="agreement")
    against: str | None = option(
        "Teacher to compare with (adds retention and differences, with intervals of 95 %) [default: none; for "
        "--agreement the one that a model was made from].",
        None,
        metavar="MODEL",
        place=True,
    )
    control: tuple[str, ...] = option(
        "Checkpoint that the models should beat, made without the teacher, say; compared with it too.", (), place=True
    )
    predictions: Path | None = option(
        "Prediction file to score instead of models, {id: text} (.gz too), for squad and squad_v2.",
        None,
        metavar="FILE",
    )
    null_odds: Path | None = option(
        "What goes with --predictions for squad_v2, {id: log-odds of no answer}: adds the best thresholds.",
        None,
        metavar="FILE",
    )
    write_predictions: Path | None = option(
        "Folder for what the model says: GLUE's leaderboard files (test splits), SQuAD's predictions.json and "
        "null_odds.json, others' as TSV.",
        None,
        metavar="DIR",
    )
    agreement: str | None = option(
        "Text without labels to compare checkpoints with their teacher on, read like distill's --corpus: masked-LM "
        "models at masked tokens, classifiers by a document a row.",
        None,
        metavar="TEXT",
        place=True,
    )
    examples: Path | None = option(
        "File to write texts to where a model's answer differs most from its teacher's, a few of each slice "
        "(--agreement).",
        None,
        metavar="FILE.jsonl",
    )
    plot: Path | None = option(
        "File to draw to how often a model agrees with its teacher by its confidence and by the teacher's "
        "(--agreement).",
        None,
        metavar="FILE.svg|png",
    )
    require: tuple[str, ...] = option("Gate like 'sst2/accuracy>=0.90'; exit 3 where it is not met.", ())
    batch_size: int = option("Sequences per forward pass.", 32, min=1)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BenchConfig(CommonConfig):
    """Measure parameters, size, latency, throughput and memory of checkpoints."""

    models: tuple[str, ...] = argument("Checkpoints; the speed-up is against the first.", "MODEL…")
    devices: tuple[str, ...] = option("Devices to run on [default: cpu, and cuda where present].", (), metavar="D,D,…")
    batch_sizes: tuple[int, ...] = option("Batch sizes.", (1, 8), metavar="N,N,…")
    seq_lengths: tuple[int, ...] = option("Sequence lengths in tokens.", (128,), metavar="N,N,…")
    precision: Literal["fp32", "bf16", "fp16"] = option("Precision of the weights.", "fp32")
    threads: int | None = option("CPU threads [default: torch's].", None, min=1)
    runs: int = option("Timed runs of each model, in turn, after the warm-up.", 20, min=2)
    require: tuple[str, ...] = option("Gate like 'speedup>=1.6'; exit 3 where it is not met.", ())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReportConfig(CommonConfig):
    """Make an HTML page, Markdown tables, plots and model cards from the records of checkpoints."""

    directories: tuple[str, ...] = argument("Directories that distilkit wrote, or that hold some.", "DIR…")
    output: Path = option("Directory to write report.html, report.md and the plots to.", short="-o", metavar="DIR")
    card: bool = option("Write a model card into each checkpoint too, as its README.md.", False)
    force: bool = option("With --card, replace a README.md that is not as distilkit wrote it.", False)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DemoConfig(CommonConfig):
    """Run the whole chain, offline, on the documentation that comes with Python."""

    output: Path | None = option(
        "Directory to keep everything in [default: a new temporary one].", None, short="-o", metavar="DIR"
    )


def recipe_names() -> list[str]:
    """List the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_text(name: str) -> str:
    """Return the text of a shipped recipe or of a recipe file."""
    path = Path(name)
    if name in recipe_names():
        path = RECIPES / f"{name}.toml"
    if not path.is_file():
        raise DistilkitError(f"no recipe '{name}': give a file or one of {', '.join(recipe_names())}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DistilkitError(f"recipe '{name}' is not UTF-8 text: give a TOML file") from None


def read_recipe(name: str, command: str) -> dict[str, Any]:
    """Return a recipe's table for a command, {} where it has none.

    Raises DistilkitError where the recipe is missing, isn't TOML, or names a table that is no command.
    """
    if sys.version_info >= (3, 11):  # here, because --help would pay for it
        import tomllib
    else:
        import tomli as tomllib
    try:
        tables = tomllib.loads(recipe_text(name))
    except tomllib.TOMLDecodeError as error:
        raise DistilkitError(f"recipe '{name}' is not TOML: {error}") from None
    for table, content in tables.items():
        if table not in COMMANDS or not isinstance(content, dict):
            raise DistilkitError(f"recipe '{name}' has '{table}': one table a command, of {', '.join(COMMANDS)}")
    return dict(tables.get(command, {}))


COMMANDS: dict[str, type[CommonConfig]] = {
    "init": InitConfig,
    "distill": DistillConfig,
    "finetune": FinetuneConfig,
    "eval": EvalConfig,
    "bench": BenchConfig,
    "report": ReportConfig,
    "demo": DemoConfig,
}
