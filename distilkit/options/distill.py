"""Options of `distill`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.spec import argument, option
from distilkit.options.training import TeacherOptions, TrainOptions
from distilkit.options.values import inside_text


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DistillOptions(
    TeacherOptions,
    TrainOptions,
    panel="Objective",
    defaults={"lr": None, "batch_size": None},
    helps={
        "lr": "Peak learning rate (default: 5e-4; embedding and soft-targets: 3e-4).",
        "batch_size": "Sequences per device and forward pass (default: 32; embedding and soft-targets: 16).",
    },
):
    """Train a student on plain text to match its teacher.

    The default objective depends on the checkpoint. With a masked-LM head it is that of Sanh et al. 2019: soft targets,
    masked LM and a cosine loss. Sentence encoders and encoders without a head learn the teacher's embeddings.
    Classifiers and taggers learn the teacher's predictions.
    """

    usage = (
        "distilkit distill student0 --corpus text/ -o student",
        "distilkit distill student0 --corpus text/ -o student-minilm --recipe minilm-v2 --resume",
    )

    student: str = argument("Checkpoint to train: a directory or a hub id.", "STUDENT")
    corpus: str = option(
        "Text to train on: a file or folder of .txt or .jsonl (.gz too) or .parquet, or a hub data set name[:config].",
        metavar="TEXT",
        is_path=True,
        panel="Input and output",
    )
    output: Path = option(
        "Directory to write the trained student to.", short="-o", metavar="DIR", panel="Input and output"
    )
    heldout: str | None = option(
        "Text for the held-out loss. Same formats as --corpus (default: 2 % of the corpus, at most 256 blocks).",
        None,
        metavar="TEXT",
        is_path=True,
        panel="Input and output",
    )
    streaming: bool = option(
        "Tokenise the text while reading it and store nothing (requires --steps).", False, panel="Advanced"
    )
    teacher: str | None = option(
        "Teacher checkpoint (default: the one that the student was extracted from).",
        None,
        metavar="MODEL",
        is_path=True,
        panel="Input and output",
    )
    text: str | None = option(
        "Column of --corpus and --heldout that holds the text (default: text).",
        None,
        metavar="COL",
        panel="Input and output",
    )
    objective: Literal["triple", "embedding", "soft-targets", "hidden", "attention", "minilm", "mlm"] | None = option(
        "Training objective. triple: soft targets, masked LM and cosine. embedding: sentence embeddings and hidden "
        "states. soft-targets: outputs of the classification head and hidden states. hidden: hidden states. attention: "
        "attention maps and hidden states. minilm: query, key and value relations. mlm: masked LM, no teacher. Each is "
        "a preset of loss weights; override any weight with --alpha-… (default: triple, embedding, soft-targets "
        "or hidden, depending on the checkpoint's head).",
        None,
    )
    alpha_ce: float | None = option(
        "Weight of the soft-target loss (triple: 5, soft-targets: 1).", None, min=0, max=1e9
    )
    alpha_mlm: float | None = option("Weight of the masked-LM loss (triple: 2, mlm: 1).", None, min=0, max=1e9)
    alpha_cos: float | None = option(
        "Weight of the cosine loss between last hidden states (triple: 1).", None, min=0, max=1e9
    )
    alpha_embedding: float | None = option(
        "Weight of the squared distance between normalised sentence embeddings (embedding: 1).", None, min=0, max=1e9
    )
    alpha_similarity: float | None = option(
        "Weight of the squared difference between student and teacher in the cosine of each pair of texts in a batch.",
        None,
        min=0,
        max=1e9,
    )
    alpha_hidden: float | None = option(
        "Weight of the distance between hidden states (hidden, attention, embedding, soft-targets: 1).",
        None,
        min=0,
        max=1e9,
    )
    alpha_attention: float | None = option(
        "Weight of the divergence between attention maps (attention: 1).", None, min=0, max=1e9
    )
    alpha_relation: float | None = option(
        "Weight of the divergence between query, key and value relations (minilm: 1).", None, min=0, max=1e9
    )
    ce_until: float = option("Share of the run after which only masked LM is trained.", 1.0, min=0, max=1)
    ce_positions: Literal["all", "masked"] = option(
        "Tokens at which the soft-target loss is computed; masked is faster.", "all"
    )
    mask_probability: float = option(
        "Share of tokens to mask; 0 masks nothing (hidden, attention and minilm).", 0.15, min=0, max=0.9
    )
    seq_length: int | None = option(
        "Tokens per block (default: 128). For embedding and soft-targets, the length at which texts are cut (default: "
        "the encoder's maximum).",
        None,
        min=8,
        max=2**20,
    )
    split: Literal["sentences", "lines", "documents"] | None = option(
        "How to cut the corpus into texts, for embedding (default: sentences) and soft-targets (default: documents).",
        None,
    )
    projection: Literal["save", "drop"] = option(
        "How to compare embeddings if the teacher's have another width. save: through a Dense module that becomes "
        "part of the student. drop: through a projection used only in training; the student keeps its own width.",
        "save",
        panel="Advanced",
    )
    packing: Literal["blocks", "documents"] = option(
        "blocks: join documents end to end. documents: one document per block; longer ones are split, shorter ones "
        "padded.",
        "blocks",
        panel="Advanced",
    )
    teacher_cache: Path | None = option(
        "Directory in which to store the teacher's predictions at masked tokens, for all epochs and later runs "
        "(requires --ce-positions masked --alpha-cos 0).",
        None,
        metavar="DIR",
        panel="Teacher cache",
    )
    cache_size: int = option(
        "Number of sampled tokens to store for each masked token.", 64, min=1, max=2**20, panel="Teacher cache"
    )
    cache_maskings: int = option(
        "Number of different maskings of each block, which alternate from epoch to epoch.",
        1,
        min=1,
        max=2**20,
        panel="Teacher cache",
    )
    evaluate_every: int = option("Updates between two held-out evaluations.", 200, min=1, max=2**40, panel="Training")
    plan: bool = option(
        "Estimate tokens, time and memory from a few updates, then stop. Writes only the cache of tokenised text.",
        False,
        panel="Advanced",
    )
    new_head: bool = option(
        "Add a randomly initialised masked-LM head if the checkpoint has none (requires --objective mlm).",
        False,
        panel="Advanced",
    )

    def rules(self) -> Iterator[str]:
        if self.streaming and self.steps is None:
            yield "--streaming requires --steps: the length of a stream is unknown"
        if self.plan and self.teacher_cache:
            yield "--plan and --teacher-cache cannot be combined: remove one"
        if self.new_head and self.objective != "mlm":
            yield "--new-head requires --objective mlm: train the new head before you distil"
        if self.teacher_cache and self.streaming:
            yield "--teacher-cache stores predictions by block and cannot store those of a stream: remove --streaming"
        if self.teacher_cache and self.ce_positions != "masked":
            yield "--teacher-cache stores predictions at masked tokens only: give --ce-positions masked"
        if self.teacher_cache and self.output.absolute() in (cache := self.teacher_cache.absolute(), *cache.parents):
            yield f"--teacher-cache '{cache}' is inside the output directory: give one outside -o"
        yield from inside_text("-o", self.output, corpus=self.corpus, heldout=self.heldout)
        if self.teacher_cache:
            yield from inside_text("--teacher-cache", self.teacher_cache, corpus=self.corpus, heldout=self.heldout)
