"""Options of `predict`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.spec import argument, option
from distilkit.options.training import CommonOptions

ENDINGS = (".jsonl", ".csv", ".tsv")
PREDICTION, PROBABILITY = "prediction", "probability"  # columns that are added


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PredictOptions(CommonOptions, panel="Input and output"):
    """Write the predictions of a fine-tuned classifier or tagger for new rows."""

    usage = (
        "distilkit predict student-tickets --data new.csv -o predicted.csv",
        "distilkit predict student-sst2 --data reviews.jsonl --text text -o predicted.jsonl",
    )

    model: str = argument("Fine-tuned checkpoint or export: a directory or a hub id.", "MODEL")
    data: Path = option(
        "File of rows without labels (jsonl, tsv, csv, .gz too, or parquet).", metavar="FILE", is_path=True
    )
    output: Path = option(
        "File to write: every row with its prediction and the probability of each label (.jsonl, .csv or .tsv).",
        short="-o",
        metavar="FILE",
    )
    text: tuple[str, ...] | None = option(
        "Text column or columns (default: as the model was trained, else guessed from the rows).",
        None,
        metavar="COL[,COL]",
        panel="Task",
    )
    max_length: int | None = option(
        "Tokens per example (default: as the model was trained).", None, min=8, max=2**20, panel="Task"
    )
    long: Literal["head", "head-tail", "windows"] | None = option(
        "How to shorten texts longer than --max-length (default: as the model was trained).", None, panel="Task"
    )
    batch_size: int = option("Rows per forward pass.", 32, min=1, max=2**20, panel="Advanced")

    def rules(self) -> Iterator[str]:
        if self.output.suffix.lower() not in ENDINGS:
            yield f"-o '{self.output}' names no format: give a file that ends in {', '.join(ENDINGS)}"
        if self.data.is_dir():
            yield f"--data '{self.data}' is a folder: give one file of rows"
