"""Options of `init`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.declare import argument, option
from distilkit.options.training import CommonOptions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InitOptions(CommonOptions):
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
