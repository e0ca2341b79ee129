"""The models of a comparison: checkpoints in torch, checkpoints in other runtimes, and exports."""

import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from distilkit.encoders import checkpoint
from distilkit.encoders.contents import config_errors
from distilkit.encoders.sizes import memory_bytes, model_sizes, parameters_by_part
from distilkit.errors import library_errors
from distilkit.files import is_exported
from distilkit.options.bench import BenchOptions
from distilkit.runtimes.exported import RuntimeModel, open_exported, program_bytes, save_exported
from distilkit.runtimes.exporting import export_model
from distilkit.runtimes.formats import require_packages
from distilkit.training.devices import DTYPES


@dataclass(frozen=True)
class Contender:
    """A model in the comparison: its name, the whole model, and the module that is timed.

    `source` has its config and tokenizer. `files` has its exported program; it is "" for a model in torch. `in_torch`
    says whether torch runs it as it was saved.
    """

    name: str
    model: PreTrainedModel
    timed: nn.Module
    source: str = ""
    files: str = ""
    in_torch: bool = True

    def sizes(self) -> dict[str, float]:
        """Return the parameters, whole and by part, if they are known, and the bytes of the weights."""
        sizes: dict[str, float] = {}
        if not isinstance(self.model, RuntimeModel):
            parts = parameters_by_part(self.model)
            sizes = model_sizes(self.model, self.source)
            sizes |= {f"parameters_{part}": float(count) for part, count in parts.items() if count}
        if self.in_torch:
            sizes["weights_memory_bytes"] = float(memory_bytes(self.timed))
        return sizes | ({"bytes": float(program_bytes(self.files))} if self.files else {})


def open_contenders(options: BenchOptions, stack: ExitStack) -> Iterator[Contender]:
    """Open each model in each runtime. What is exported for this lies in directories that `stack` removes.

    Raises DistilkitError if the packages of a runtime are not installed.
    """
    forms = {runtime.partition("-")[0] for runtime in options.runtimes} - {"torch"}
    for form in forms:
        require_packages(form)
    if options.compile:
        require_compiler()
    for name in options.models:
        if is_exported(name):
            model = open_exported(name, options.threads)
            yield Contender(name, model, model, name, name, in_torch=False)
            continue
        contender = open_checkpoint(name, random_weights=options.random_weights)
        for runtime in options.runtimes:
            made = run_in(contender, runtime, options, stack)
            yield made if options.runtimes == ("torch",) else replace(made, name=f"{name} [{runtime}]")


def open_checkpoint(name: str, *, random_weights: bool = False) -> Contender:
    """Open a checkpoint with the head that its weights hold, or a bare encoder with random weights from its config.

    A masked-LM head is not timed, because only pre-training needs it.
    """
    if random_weights:
        config = checkpoint.open_config(name)
        with config_errors(name):
            model: PreTrainedModel = AutoModel.from_config(config).eval()
        return Contender(name, model, model, name)
    model = checkpoint.open_model(name)
    return Contender(name, model, timed_part(model), name)


def timed_part(model: PreTrainedModel) -> nn.Module:
    """Return what is timed of a model: all of it if it has a head for a task, else its encoder."""
    whole = checkpoint.head_of_model(model) not in ("masked-lm", "encoder")
    return model if whole else model.base_model


def run_in(contender: Contender, runtime: str, options: BenchOptions, stack: ExitStack) -> Contender:
    """Return a checkpoint's contender in another runtime, or in torch as the options say."""
    form, _, int8 = runtime.partition("-")
    if runtime == "torch":
        return replace(contender, timed=prepare(contender.timed, options))
    if runtime == "torch-int8":
        return replace(contender, timed=quantize(contender.timed), in_torch=False)
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    save_exported(export_model(cast(PreTrainedModel, contender.timed), form, int8=bool(int8)), None, Path(directory))
    return replace(contender, timed=open_exported(directory, options.threads), files=directory, in_torch=False)


def prepare(model: nn.Module, options: BenchOptions) -> nn.Module:
    """Return a model in the precision of --precision; with --compile, torch compiles it in the first passes."""
    model = model.to(DTYPES[options.precision])
    if options.compile:
        model.compile(dynamic=bool(options.task or options.data))
    return model


def require_compiler() -> None:
    """Raise DistilkitError if torch.compile does not work here. On a CPU it needs a C++ compiler."""
    with library_errors("--compile does not work here", "install a C++ compiler such as g++, or remove --compile"):
        torch.compile(lambda values: values + 1)(torch.ones(2))


def quantize(model: nn.Module) -> nn.Module:
    """Return a copy whose linear layers have weights of 8 bits; activations are quantised while it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torchao, a package of its own
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8
        )
    return quantized
