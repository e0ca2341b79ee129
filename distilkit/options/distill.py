"""Options of `distill`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.declare import argument, option
from distilkit.options.training import TrainOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DistillOptions(TrainOptions):
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
