"""Open an exported model and call it like the checkpoint that it came from."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint, sentence
from distilkit.encoders.contents import Head, named_head
from distilkit.encoders.forward import Batch
from distilkit.encoders.sentence import LONGEST_TEXT, SentenceEncoder
from distilkit.encoders.sentence_layout import read_layout
from distilkit.encoders.sentence_modules import SentenceHead
from distilkit.errors import DistilkitError, library_errors
from distilkit.files import EXPORT_MANIFEST, is_exported, staging
from distilkit.runtimes.exporting import random_inputs
from distilkit.runtimes.formats import EXECUTORCH_BATCH, require_packages, runner_options

if TYPE_CHECKING:
    from transformers.exporters import ExportedModel


class RuntimeModel(PreTrainedModel):
    """An exported model with the interface of the checkpoint that it came from. It has no weights of its own."""

    def __init__(self, program: "ExportedModel", max_batch: int | None = None) -> None:
        super().__init__(cast(PretrainedConfig, program.config))
        self.program, self.max_batch = program, max_batch

    @property
    def device(self) -> torch.device:
        return self.program.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        """Return what the checkpoint returns for inputs (B, T).

        Raises DistilkitError if the program takes no such batch, or if its runtime fails.
        """
        if self.max_batch and len(input_ids) > self.max_batch:
            raise DistilkitError(
                f"an ExecuTorch program takes batches of at most {self.max_batch}, not {len(input_ids)}: lower "
                "--batch-size (bench: --batch-sizes)"
            )
        given: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        given |= {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        with library_errors("the exported model cannot be run", "export to another --format"):
            return self.program(**given)


def open_exported(name: str, threads: int | None = None) -> RuntimeModel:
    """Open an exported model on the CPU, with torch's number of threads unless another is given.

    Raises DistilkitError if its packages are not installed, or if its files are damaged or do not fit each other.
    """
    form = format_of(name)
    require_packages(form)
    from transformers.exporters import ExportedModel

    options = runner_options(form, threads or torch.get_num_threads())
    with unreadable(name):
        program = ExportedModel.from_pretrained(name, local_files_only=True, **options)
        if not program.components:
            raise ValueError(f"its {EXPORT_MANIFEST} lists no program")
        model = RuntimeModel(program, EXECUTORCH_BATCH if form == "executorch" else None)
    settings = Path(name) / "tokenizer_config.json"
    if settings.is_file():  # RoBERTa's config counts two positions too many
        with unreadable(name):
            length = json.loads(settings.read_text("utf-8"))["model_max_length"]
            if not 0 < length <= (getattr(model.config, "max_position_embeddings", None) or LONGEST_TEXT):
                raise ValueError(f"its tokenizer_config.json has model_max_length {length}")
            model.config.max_position_embeddings = length
    check_outputs(name, model)
    return model


@torch.inference_mode()
def check_outputs(name: str, model: RuntimeModel) -> None:
    """Run a program on one token. Raises DistilkitError if it does not compute what config.json describes."""
    with unreadable(name):
        inputs = random_inputs(model, [1], torch.Generator().manual_seed(0))
        outputs = model(**{key: value.to(model.device) for key, value in inputs.items()})
        for output, shape in output_shapes(model.config).items():
            found = list(outputs[output].shape) if output in outputs else "absent"
            if found != shape:
                raise ValueError(f"its config.json describes {output} of shape {shape}, its program computes {found}")


def output_shapes(config: PretrainedConfig) -> dict[str, list[int]]:
    """Return the shapes of the outputs for one token, by the head that a config names; {} for a bare encoder."""
    labels = int(config.num_labels or 0)
    shapes: dict[Head | None, dict[str, list[int]]] = {
        "masked-lm": {"logits": [1, 1, int(config.vocab_size)]},
        "token-classification": {"logits": [1, 1, labels]},
        "sequence-classification": {"logits": [1, labels]},
        "question-answering": {"start_logits": [1, 1], "end_logits": [1, 1]},
    }
    return shapes.get(named_head(config.architectures), {})


class ExportedSentenceEncoder(SentenceEncoder):
    """An exported sentence encoder, whose program has the pooling inside: texts to embeddings."""

    def forward(self, batch: Batch, _prompt_tokens: int = 0) -> Tensor:
        """Return the embeddings (B, D) of a padded batch. The program knows the tokens of the default prompt."""
        segments = {"token_type_ids": torch.zeros_like(batch["input_ids"])} if "token_type_ids" in self.inputs else {}
        inputs = segments | {name: batch[name] for name in (*self.inputs, "attention_mask") if name in batch}
        return cast(Tensor, self.model(**inputs)["sentence_embedding"])


def open_sentence_encoder(name: str) -> SentenceEncoder:
    """Open a checkpoint or an exported model as a sentence encoder.

    Raises DistilkitError if it is none.
    """
    if not is_exported(name):
        return sentence.open_sentence_encoder(name)
    if (layout := read_layout(name)) is None:
        raise DistilkitError(f"'{name}' was not exported from a sentence encoder: export one")
    tokenizer = checkpoint.open_tokenizer(name, None)
    encoder = ExportedSentenceEncoder(open_exported(name), tokenizer, cast(SentenceHead, nn.Identity()), layout)
    return encoder.check_room(name)


def save_exported(program: "ExportedModel", tokenizer: PreTrainedTokenizerBase | None, directory: Path) -> None:
    """Save an exported model, with its tokenizer if there is one."""
    with staging(directory) as partial:
        program.save_pretrained(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)


def format_of(name: str) -> str:
    """Return the format of an exported model."""
    with unreadable(name):
        return str(json.loads((Path(name) / EXPORT_MANIFEST).read_text(encoding="utf-8"))["export_format"])


def unreadable(name: str) -> AbstractContextManager[None]:
    """Context manager: turn whatever a runtime raises on damaged files into one line."""
    return library_errors(f"exported model '{name}' cannot be read", "export it again")


def open_model(name: str, head: Head) -> PreTrainedModel:
    """Open a checkpoint or an exported model that has this head.

    Raises DistilkitError if an exported model has another one.
    """
    if not is_exported(name):
        return checkpoint.open_model(name, head)
    found = named_head(checkpoint.open_config(name).architectures)
    if found != head:
        raise DistilkitError(
            f"'{name}' was exported with a {found} head, but a {head} head is needed: export another checkpoint"
        )
    return open_exported(name)


def program_bytes(name: str | Path) -> int:
    """Return the size of an exported model's graph and weights in bytes."""
    entries = json.loads((Path(name) / EXPORT_MANIFEST).read_text(encoding="utf-8"))["components"].values()
    return sum(file.stat().st_size for entry in entries for file in Path(name).glob(f"{Path(entry['file']).stem}.*"))
