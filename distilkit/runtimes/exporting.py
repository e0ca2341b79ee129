"""Turn a checkpoint into a program of another runtime, with transformers' exporters."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint
from distilkit.encoders.forward import input_names, required_inputs
from distilkit.encoders.sentence import SentenceEncoder, open_sentence_encoder
from distilkit.encoders.sentence_layout import Layout, read_layout
from distilkit.errors import DistilkitError, library_errors
from distilkit.runtimes.formats import export_config

if TYPE_CHECKING:
    from transformers.exporters import ExportedModel

SAMPLE_LENGTH = 16  # tokens


class EmbeddingModel(nn.Module):
    """A sentence encoder as one model: inputs to embeddings. Texts start with the default prompt, if there is one."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        super().__init__()
        self.config, self.base_model, self.head = encoder.model.config, encoder.model, encoder.head
        self.prompt_tokens = encoder.prompt_tokens()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the embeddings (B, D) of inputs (B, T), by the name that sentence-transformers gives them."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.base_model(**batch, **segments).last_hidden_state  # (B, T, H)
        return {"sentence_embedding": self.head(states, attention_mask, self.prompt_tokens)}


def open_whole(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a checkpoint with the head that it was saved with, or with the modules of a sentence encoder.

    The tokenizer's model_max_length is the number of tokens that the model takes.
    Raises DistilkitError for a multiple-choice head, whose inputs have another shape.
    """
    head = checkpoint.head_of(name)
    if head == "multiple-choice":
        raise DistilkitError(f"'{name}' has a multiple-choice head, which cannot be exported: give another checkpoint")
    if sentence_layout(name):
        encoder = open_sentence_encoder(name)
        encoder.tokenizer.model_max_length = encoder.max_length
        return cast(PreTrainedModel, EmbeddingModel(encoder)), encoder.tokenizer  # it has what is used here
    model = checkpoint.open_model(name, head)
    tokenizer = checkpoint.open_tokenizer(name, model)
    tokenizer.model_max_length = int(min(tokenizer.model_max_length, checkpoint.max_tokens(model) or 2**20))
    return model, tokenizer


def sentence_layout(name: str) -> Layout | None:
    """Return the layout of a sentence encoder, None for another checkpoint."""
    layout = read_layout(name) if checkpoint.head_of(name) == "encoder" else None
    return layout if layout and layout.is_sentence_encoder else None


def export_model(model: PreTrainedModel, form: str, *, int8: bool = False) -> "ExportedModel":
    """Export a model for any batch size and length.

    Raises DistilkitError if the format cannot express the model.
    """
    from transformers.exporters import AutoHfExporter

    inputs = sample_inputs(model)
    config = export_config(form, list(inputs), checkpoint.max_tokens(model), int8=int8)
    named = model.base_model if isinstance(model, EmbeddingModel) else model
    model.config.architectures = [type(named).__name__]
    problem = f"a {model.config.model_type} model cannot be exported to {form}"
    with library_errors(problem, "choose another --format"), silence():
        return AutoHfExporter.from_config(config).export(model.eval(), inputs, config)


def sample_inputs(model: PreTrainedModel) -> dict[str, Any]:
    """Return inputs (2, T) for the trace, with padding in the second row."""
    length = min(SAMPLE_LENGTH, checkpoint.max_tokens(model) or SAMPLE_LENGTH)
    return random_inputs(model, [length, length - 1], torch.Generator().manual_seed(0))


def random_inputs(
    model: PreTrainedModel, lengths: Sequence[int], generator: torch.Generator, *, left: bool = False
) -> dict[str, Tensor]:
    """Draw the inputs (B, T) of a model: rows of these lengths, padded on the right, or `left`, to the longest."""
    padding = model.config.pad_token_id or 0
    known = torch.tensor([i for i in range(model.config.vocab_size) if i != padding])
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    mask = mask.flip(1) if left else mask
    ids = known[torch.randint(len(known), shape, generator=generator)].where(mask.bool(), padding)
    segments = torch.randint(2, shape, generator=generator) * mask
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    return {name: values[name] for name in input_names(model)} | required_inputs(model, ids)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Context manager: hide what the exporters print, warn and log. What goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
