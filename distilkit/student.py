"""`init`: choose layers, extract them, and prove by reloading that the student is what it should be."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit import checkpoint
from distilkit.config import InitConfig
from distilkit.errors import DistilkitError
from distilkit.record import Record, claim, read_biography, record, write_biography

DEPTHS = ("num_hidden_layers", "n_layers", "num_layers")


def init(config: InitConfig) -> Record:
    """Extract a student from a teacher, save it, reload it and compare, then write its record."""
    teacher = open_teacher(config.teacher)
    tokenizer = checkpoint.open_tokenizer(config.teacher)
    depth = len(find_layers(teacher))
    kept = choose(config, depth)
    student = extract(teacher, kept)
    with claim(config.output) as out:
        checkpoint.save(student, tokenizer, out)
        difference = prove(student, tokenizer, out)
        metrics = {
            "layers": float(len(kept)),
            "teacher_layers": float(depth),
            "parameters": float(student.num_parameters()),
            "teacher_parameters": float(teacher.num_parameters()),
            "bytes": float(checkpoint.weights_bytes(out)),
            "max_logit_difference": difference,
        }
        done = record("init", config, metrics, kept_layers=",".join(map(str, kept)))
        write_biography(out, [*read_biography(config.teacher), done])
    return done


def open_teacher(name: str) -> PreTrainedModel:
    """Open the checkpoint whose layers are to be taken."""
    if checkpoint.open_config(name).model_type == "albert":
        raise DistilkitError(
            f"'{name}' is an ALBERT: its layers share one set of weights, so none can be dropped: give another teacher"
        )
    return checkpoint.open_model(name, "masked-lm")


def choose(config: InitConfig, depth: int) -> list[int]:
    """Return the teacher's layers that the student keeps, in order.

    Raises DistilkitError for layers that the teacher doesn't have, or no choice that leaves fewer than it has.
    """
    if config.keep is not None:
        kept = list(config.keep)
        if kept != sorted(set(kept)) or not kept or kept[0] < 0 or kept[-1] >= depth:
            raise DistilkitError(f"--keep takes rising numbers from 0 to {depth - 1}, this teacher's layers")
        if config.layers not in (None, len(kept)):
            raise DistilkitError(f"--keep names {len(kept)} layers and --layers {config.layers}: give one of them")
        return kept
    layers = config.layers or max(1, depth // 2)
    if layers > depth:
        raise DistilkitError(f"--layers {layers} is more than the teacher's {depth}: give fewer")
    return {
        "spread": spread(depth, layers),
        "alternate": alternate(depth, layers),
        "first": list(range(layers)),
        "last": list(range(depth - layers, depth)),
    }[config.strategy]


def spread(teacher_layers: int, student_layers: int) -> list[int]:
    """Space the kept layers evenly from the first to the last: 12, 6 -> [0, 2, 4, 7, 9, 11] (DistilBERT's choice)."""
    if student_layers == 1:
        return [0]
    return [round(i * (teacher_layers - 1) / (student_layers - 1)) for i in range(student_layers)]


def alternate(teacher_layers: int, student_layers: int) -> list[int]:
    """Keep every n-th layer, counted from the first: 12, 6 -> [0, 2, 4, 6, 8, 10]."""
    step = teacher_layers // student_layers
    return [i * step for i in range(student_layers)]


def find_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the model's stack of layers: the one module list as long as its config says it is deep.

    Raises DistilkitError where there is none or more than one.
    """
    depth = next((getattr(model.config, name) for name in DEPTHS if getattr(model.config, name, None)), None)
    stacks = [
        module for module in model.base_model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if len(stacks) != 1:
        raise DistilkitError(
            f"{type(model).__name__} has {len(stacks)} stacks of {depth} layers, not one: it cannot be shortened"
        )
    return stacks[0]


def extract(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return a copy of the teacher with only those of its layers, and the config shrunk alike.

    Every list in the config that is as long as the teacher is deep is a list by layer and is shrunk too.
    """
    depth = len(find_layers(teacher))
    student = copy.deepcopy(teacher)
    stack = find_layers(student)
    kept = [stack[index] for index in layers]
    while len(stack):
        del stack[-1]
    stack.extend(kept)
    for name, value in list(vars(student.config).items()):
        if isinstance(value, list) and len(value) == depth:
            setattr(student.config, name, [value[index] for index in layers])
    for name in DEPTHS:
        if getattr(student.config, name, None) == depth:
            setattr(student.config, name, len(kept))
    return student


def prove(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> float:
    """Reload a saved student and return how far its logits are from the one in memory (0.0 on CPU in fp32).

    Raises DistilkitError where they differ or a weight is missing.
    """
    reloaded = checkpoint.open_model(str(directory), "masked-lm")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(tokenizer), (2, 32), generator=generator)  # (B, T)
    difference = float((_logits(student, ids) - _logits(reloaded, ids)).abs().max())
    if difference > 1e-5:
        raise DistilkitError(
            f"the saved student's logits differ by {difference:.3g} after reloading: report this model"
        )
    return difference


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model.eval()(input_ids=ids).logits  # (B, T, V)
    return logits
