"""Compress any BERT-family checkpoint the way DistilBERT was made, and measure what it keeps.

Each command is a function: `distilkit.init("bert-base-uncased", output="student0", layers=6)` returns a Record.
Everything is loaded on first use, so `import distilkit` is light.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_COMMANDS = ("init", "distill", "finetune", "eval", "predict", "bench", "export", "report", "demo")
_PUBLIC = {
    "DistilkitError": "errors",
    "Record": "record",
    "Distillation": "distillation.text_objective",
    "extract": "encoders.layers",
    "spread": "encoders.layer_selection",
    "train": "training.loop",
}
__all__ = ["DistilkitError", "Distillation", "Record", "__version__", "extract", "spread", "train"]


def __getattr__(name: str) -> Any:
    command = "eval" if name == "evaluate" else name  # for `from distilkit import evaluate`
    if command in _COMMANDS:
        return importlib.import_module("distilkit.commands.call").make_function(command)
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"distilkit.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'distilkit' has no attribute '{name}'")
