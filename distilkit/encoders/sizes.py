"""Count the parameters and bytes of a model or of its files."""

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from distilkit.encoders.layers import find_stack
from distilkit.errors import DistilkitError
from distilkit.files import BIOGRAPHY


def weights_bytes(directory: str | Path) -> int:
    """Return the size of a checkpoint's weight files in bytes, 0 for a hub id that is not local."""
    return sum(path.stat().st_size for path in Path(directory).glob("*.safetensors"))


def tensor_bytes(model: PreTrainedModel) -> int:
    """Return the size of a model's weights in bytes, with tied weights counted once."""
    return sum({id(tensor): tensor.nbytes for tensor in model.state_dict(keep_vars=True).values()}.values())


def memory_bytes(model: nn.Module) -> int:
    """Return the memory that a model's parameters and buffers take, in bytes, with tied weights counted once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}.values())


def compare_sizes(teacher: PreTrainedModel, student: PreTrainedModel) -> dict[str, float]:
    """Count layers, tokens, parameters by part, and bytes of teacher and student."""
    models = {"teacher": teacher, "student": student}
    return {f"{name}/{size}": value for name, model in models.items() for size, value in shape_sizes(model).items()}


def shape_sizes(model: PreTrainedModel) -> dict[str, float]:
    """Count a model's layers, tokens, parameters by part, and the bytes of its tensors, which need no data."""
    parts = parameters_by_part(model)
    return {
        "layers": float(len(find_stack(model).layers)),
        "vocabulary": float(model.config.vocab_size),
        **{f"parameters_{part}": float(number) for part, number in parts.items() if number},
        "parameters": float(sum(parts.values())),
        "bytes": float(tensor_bytes(model)),
    }


def parameters_by_part(model: PreTrainedModel) -> dict[str, int]:
    """Count a model's parameters by part: embeddings, layers, head, other. Tied weights count once."""
    layers = {path for row in find_stack(model).layers for path in row}
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    tables = {id(module.weight) for module in model.base_model.modules() if isinstance(module, nn.Embedding)}
    counts = {"embeddings": 0, "layers": 0, "head": 0, "other": 0}
    for name, parameter in model.named_parameters():
        in_layer = any(name.startswith(f"{path}.") for path in layers)
        part = "layers" if in_layer else "embeddings" if id(parameter) in tables else "other"
        counts[part if id(parameter) in encoder else "head"] += parameter.numel()
    return counts


def model_sizes(model: PreTrainedModel, name: str) -> dict[str, float]:
    """Count a model's parameters, and the bytes of its weight files (of its weights, if the files are not local)."""
    return {
        "parameters": float(_parameters(model)),
        "encoder_parameters": float(_parameters(model.base_model)),
        "bytes": float(weights_bytes(name) or tensor_bytes(model)),
    }


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_weights(directory: Path) -> dict[str, float]:
    """Count a checkpoint's parameters and bytes from the headers of its files; {} if it has no weights.

    If the directory holds one checkpoint per task, the first one counts.
    """
    of_tasks = sorted(path.parent for path in directory.glob(f"*/{BIOGRAPHY}"))
    files = sorted(directory.glob("*.safetensors")) or [
        file for path in of_tasks[:1] for file in path.glob("*.safetensors")
    ]
    parameters = 0
    for path in files:
        try:
            with safe_open(path, "pt") as tensors:
                parameters += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise DistilkitError(f"'{path}' cannot be read ({error}): create the checkpoint again") from None
    size = sum(path.stat().st_size for path in files)
    return {"parameters": float(parameters), "bytes": float(size)} if files else {}
