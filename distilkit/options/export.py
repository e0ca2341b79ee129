"""Options of `export`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distilkit.options.spec import argument, option
from distilkit.options.tasks import TaskOptions

Format = Literal["onnx", "openvino", "executorch"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExportOptions(
    TaskOptions,
    panel="Export",
    defaults={"task": None},
    helps={"task": "Task to score the checkpoint and the export on."},
):
    """Export a checkpoint to another runtime, and check that the exported model gives the same outputs.

    The export takes any batch size (ExecuTorch: up to 32), and any length up to the model's maximum. A sentence
    encoder is exported with its pooling.
    """

    usage = (
        "distilkit export student-sst2 -o student-sst2-onnx",
        "distilkit export student-sst2 -o student-sst2-int8 --int8 --task sst2 --max-drop 0.01",
    )

    model: str = argument("Checkpoint to export: a directory or a hub id.", "MODEL")
    output: Path = option("Directory to write the export to.", short="-o", metavar="DIR", panel="Input and output")
    format: Format = option("Format; each is an extra of distilkit: pip install 'distilkit[onnx]'.", "onnx")
    int8: bool = option("Quantise the weights to 8 bits (onnx). Give --task to measure what that costs.", False)
    max_drop: float = option(
        "Refuse if the export loses more than this share of the checkpoint's score on --task.", 0.01, min=0, max=1
    )
    batch_size: int = option("Sequences per forward pass when scoring.", 32, min=1, max=2**20, panel="Advanced")

    def rules(self) -> Iterator[str]:
        if self.int8 and self.format != "onnx":
            yield f"--int8 requires --format onnx, not {self.format}: remove one of them"
        if self.task == "glue":
            yield "--task glue is nine tasks, and each has its own checkpoint: give one task"
        if not self.task:
            names = ("data", "text", "label", "kind", "max_length", "long", "max_drop")
            yield from self.unused(names, "requires --task: give one, or remove it")
