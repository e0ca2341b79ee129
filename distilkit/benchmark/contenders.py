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
from distilkit.encoders.sizes import model_sizes, parameters_by_part
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
        return sizes | ({"bytes": float(program_bytes(self.files))} if self.files else {})


def open_contenders(options: BenchOptions, stack: ExitStack) -> Iterator[Contender]:
    """Open each model in each runtime. What is exported for this lies in directories that `stack` removes.

    Raises DistilkitError if the packages of a runtime are not installed.
    """
    forms = {runtime.partition("-")[0] for runtime in options.runtimes} - {"torch"}
    for form in forms:
        require_packages(form)
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
        model: PreTrainedModel = AutoModel.from_config(checkpoint.open_config(name)).eval()
        return Contender(name, model, model, name)
    model = checkpoint.open_model(name)
    whole = checkpoint.head_of_model(model) not in ("masked-lm", "encoder")
    return Contender(name, model, model if whole else model.base_model, name)


def run_in(contender: Contender, runtime: str, options: BenchOptions, stack: ExitStack) -> Contender:
    """Return a checkpoint's contender in another runtime, or in torch in the precision of --precision."""
    form, _, int8 = runtime.partition("-")
    if runtime == "torch":
        return replace(contender, timed=contender.timed.to(DTYPES[options.precision]))
    if runtime == "torch-int8":
        return replace(contender, timed=quantize(contender.timed), in_torch=False)
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    save_exported(export_model(cast(PreTrainedModel, contender.timed), form, int8=bool(int8)), None, Path(directory))
    return replace(contender, timed=open_exported(directory, options.threads), files=directory, in_torch=False)


def quantize(model: nn.Module) -> nn.Module:
    """Return a copy whose linear layers have weights of 8 bits; activations are quantised while it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torchao, a package of its own
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8
        )
    return quantized
