"""The files that sentence-transformers puts beside an encoder, written without the library."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_modules(directory: Path, pooling: str, dense: int) -> None:
    """Write the files of sentence-transformers beside a checkpoint of width 32; dense 0 leaves Dense out."""
    torch.manual_seed(1)
    modules = {
        "Pooling": {"pooling_mode": pooling},
        "Dense": {"in_features": 32, "out_features": dense, "activation_function": "torch.nn.modules.activation.Tanh"},
        "Normalize": {},
    }
    names = ["Transformer", *(name for name in modules if dense or name != "Dense")]
    entries = []
    for number, name in enumerate(names):
        path = f"{number}_{name}" if number else ""
        kind = f"sentence_transformers.models.{name}"
        entries.append({"idx": number, "name": str(number), "path": path, "type": kind})
        if number:
            (directory / path).mkdir()
            (directory / path / "config.json").write_text(json.dumps(modules[name]))
        if name == "Dense":
            weights = {"linear.weight": torch.randn(dense, 32), "linear.bias": torch.randn(dense)}
            save_file(weights, directory / path / "model.safetensors")
    (directory / "modules.json").write_text(json.dumps(entries))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48}))
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
