"""Options of `init`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.spec import argument, option
from distilkit.options.training import CommonOptions
from distilkit.options.values import inside_text


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ArchitectureOptions(CommonOptions, panel="Student"):
    architecture: Literal["same", "distilbert"] = option(
        "Architecture of the student. distilbert (from BERT only): no token types, no pooler.", "same"
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InitOptions(ArchitectureOptions, panel="Student"):
    """Extract a student from a teacher by keeping some of its layers."""

    usage = (
        "distilkit init bert-base-uncased -o student0",
        "distilkit init bert-base-uncased -o student4 --layers 4 --strategy search --corpus text/",
    )

    teacher: str = argument("Checkpoint to take layers from: a directory or a hub id.", "TEACHER")
    output: Path = option("Directory to write the student to.", short="-o", metavar="DIR", panel="Input and output")
    layers: int | None = option("Number of layers to keep (default: half of the teacher's).", None, min=1, max=10**6)
    keep: tuple[int, ...] | None = option(
        "Teacher layers to keep, counted from 0; replaces --layers and --strategy.", None, min=0, metavar="N,N,…"
    )
    strategy: Literal["spread", "alternate", "first", "last", "search"] = option(
        "Which layers to keep. spread: evenly from first to last (12 to 6: 0,2,4,7,9,11). alternate: every other one "
        "(0,2,4,6,8,10). search: those with outputs closest to the teacher's on --corpus.",
        "spread",
    )
    corpus: str | None = option(
        "Text for --strategy search and --vocabulary N. Same formats as for distill.",
        None,
        metavar="TEXT",
        is_path=True,
        panel="Input and output",
    )
    vocabulary: str | None = option(
        "Prune the vocabulary to the tokens of this text, or to the N most frequent in --corpus, plus the sub-tokens "
        "they need (default: keep all).",
        None,
        metavar="TEXT|N",
        is_path=True,
    )
    random: bool = option(
        "Initialise all weights at random, by --seed, instead of keeping the teacher's: a baseline of the same shape.",
        False,
        panel="Advanced",
    )
    dry_run: bool = option("Show everything, verification included, and write nothing.", False, panel="Advanced")
    no_verify: bool = option(
        "Skip the check that the saved student computes what the truncated teacher computes.", False, panel="Advanced"
    )
    allow_pickle: bool = option(
        "Read pytorch_model.bin if there are no safetensors (tensors only).", False, panel="Advanced"
    )

    @property
    def uses_corpus(self) -> bool:
        """Whether the other options measure on, or count the tokens of, --corpus."""
        return self.strategy == "search" or bool(self.vocabulary and self.vocabulary.isdecimal())

    def rules(self) -> Iterator[str]:
        if self.strategy == "search" and self.corpus is None:
            yield "--strategy search measures on text: give a --corpus"
        if self.strategy == "search" and self.keep is not None:
            yield "--strategy search chooses the layers itself: remove --keep"
        if self.strategy == "search" and self.random:
            yield "--strategy search compares the teacher's layers, but --random keeps no weights: remove one of them"
        if self.vocabulary and self.vocabulary.isdecimal() and self.corpus is None:
            yield "--vocabulary N counts tokens in a text: give it as --corpus"
        yield from inside_text("-o", self.output, corpus=self.corpus, vocabulary=self.vocabulary)
