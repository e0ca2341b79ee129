"""Compress any BERT-family checkpoint the way DistilBERT was made, and measure what it keeps."""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "DistilkitError": "errors",
    "Record": "record",
    "spread": "encoders.layer_selection",
    "extract": "encoders.layers",
    "train": "training.loop",
    "Distillation": "distillation.text_objective",
}
__all__ = ["DistilkitError", "Distillation", "Record", "__version__", "extract", "spread", "train"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"distilkit.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'distilkit' has no attribute '{name}'")
