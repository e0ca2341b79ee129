"""The inputs of a comparison: random tokens of one length, or the rows of a task or text with their own lengths."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distilkit.benchmark.contenders import Contender
from distilkit.data import corpus
from distilkit.encoders import checkpoint
from distilkit.encoders.forward import input_names
from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.record import BenchSetting
from distilkit.tasks.catalogue import TASKS
from distilkit.tasks.rows import read_validation

Batch = dict[str, Tensor]
Texts = Sequence[tuple[str, ...]]  # a text, or a pair, for each row
UNLIMITED = 2**20  # tokens


def read_texts(options: BenchOptions) -> Texts:
    """Read the texts of --task or --data in order, up to --rows of them.

    Raises DistilkitError if there are fewer than two.
    """
    if options.task:
        task = TASKS[options.task]
        rows = next(iter(read_validation(task, Path(options.data) if options.data else None).values()))
        columns = ("question", "context") if task.kind == "span" else task.text
    else:
        rows, columns = corpus.read_documents(str(options.data)), ("text",)
    chosen = rows.select(range(min(len(rows), options.rows or len(rows))))
    if len(chosen) < 2:
        raise DistilkitError("--task and --data give fewer than 2 rows: give more")
    return [tuple(str(row[column]) for column in columns) for row in chosen]


def random_inputs(contenders: Sequence[Contender], setting: BenchSetting, seed: int) -> tuple[Batch, ...]:
    """Return each model's inputs (B, T): the same random token ids, without padding, in one segment.

    The ids are in the vocabulary of every model.
    Raises DistilkitError if it has none beside padding.
    """
    generator = torch.Generator().manual_seed(seed)
    configs = [contender.model.config for contender in contenders]
    padding = {config.pad_token_id for config in configs}
    known = [i for i in range(min(config.vocab_size for config in configs)) if i not in padding]
    if not known:
        raise DistilkitError("a model's vocabulary holds no token beside padding: give another model")
    ids = torch.tensor(known)[torch.randint(len(known), (setting.batch_size, setting.length), generator=generator)]
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return tuple(
        {name: values[name].to(setting.device) for name in input_names(contender.model)} for contender in contenders
    )


def text_batches(contender: Contender, texts: Texts, setting: BenchSetting) -> Iterator[Batch]:
    """Yield a model's inputs (B, T) for batches of texts in their order, padded to the longest of the batch."""
    tokenizer = checkpoint.open_tokenizer(contender.source, needs=["pad"])
    limit = int(min(tokenizer.model_max_length, checkpoint.max_tokens(contender.model) or UNLIMITED, UNLIMITED))
    names = input_names(contender.model)
    for start in range(0, len(texts), setting.batch_size):
        columns = [list(column) for column in zip(*texts[start : start + setting.batch_size], strict=True)]
        encoded = tokenizer(
            *columns, truncation=True, max_length=limit, padding=True, return_tensors="pt",
            return_token_type_ids="token_type_ids" in names,
        )  # fmt: skip
        yield {name: encoded[name].to(setting.device) for name in names}
