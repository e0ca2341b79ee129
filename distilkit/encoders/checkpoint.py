"""Open and save models and tokenizers: the only caller of from_pretrained and save_pretrained."""

import errno
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders.contents import (
    Head,
    check_placement,
    config_errors,
    identify,
    is_pooler,
    named_head,
    place,
    reorder_outputs,
    restore_precision,
    summarise,
    without_head,
)
from distilkit.encoders.weights import read_tensors, widest
from distilkit.errors import DistilkitError, first_words, library_errors
from distilkit.files import staging
from distilkit.hub import hub_errors, split_revision
from distilkit.progress import say_once
from distilkit.special_tokens import Special, check_limit, check_special_tokens, vocabulary_size

# Config fields that name files beside the checkpoint: code, and weights under another name.
NOT_HANDED_ON = ("auto_map", "transformers_weights")

# Config fields that say how a call returns its outputs, not what the model is. Outputs are read by name.
OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}

MIN_TOKENS = 6  # of a tokenizer; if its files are missing, transformers builds one that has only special tokens

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def open_config(name: str) -> PretrainedConfig:
    """Read the config of an encoder checkpoint: a directory or a hub id.

    Raises DistilkitError if there is no checkpoint, if it is not an encoder, or if the hub cannot be reached.
    """
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        raise DistilkitError(
            f"'{name}' is not a checkpoint (no config.json): give a directory that save_pretrained wrote"
        )
    if not path.is_dir() and (path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DistilkitError(f"no checkpoint directory '{name}': check the path")
    if (path / "adapter_config.json").is_file():
        raise DistilkitError(f"'{name}' has an adapter (adapter_config.json): merge its weights into the model first")
    hub_id, revision = split_revision(name)
    with config_errors(name) if path.is_dir() else hub_errors(name):
        config: PretrainedConfig = AutoConfig.from_pretrained(hub_id, revision=revision, trust_remote_code=False)
    check_kind(name, config)
    for field in NOT_HANDED_ON:
        config.__dict__.pop(field, None)
    for field, value in OUTPUTS.items():
        setattr(config, field, value)
    return config


def check_kind(name: str, config: PretrainedConfig) -> None:
    """Raise DistilkitError for a checkpoint that is not a plain text encoder."""
    kind = None
    if type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        kind = "not a masked-LM encoder"
    elif config.is_encoder_decoder:
        kind = "an encoder-decoder, not a masked-LM encoder"
    elif hasattr(config, "vision_config"):
        kind = "a vision-language model, not a masked-LM encoder of text alone"
    if kind:
        raise DistilkitError(f"'{name}' is a {config.model_type} checkpoint, {kind}: give a BERT-like one")
    names: Any = config.architectures
    if names is not None and not (isinstance(names, list) and all(isinstance(entry, str) for entry in names)):
        raise DistilkitError(f"'{name}' has a config.json in which 'architectures' is not a list of names: correct it")
    if getattr(config, "quantization_config", None):
        raise DistilkitError(f"'{name}' is quantised (quantization_config): give the checkpoint in full precision")


def head_of(name: str, *, allow_pickle: bool = False) -> Head:
    """Return the head that a checkpoint's weights hold, whatever its config names; "encoder" for none."""
    return identify(open_config(name), read_tensors(name, allow_pickle=allow_pickle)).head


def head_of_model(model: PreTrainedModel) -> Head:
    """Return the head of an open model."""
    return named_head([type(model).__name__]) or "encoder"


def open_model(
    name: str,
    head: Head | None = None,
    *,
    new_head: bool = False,
    outputs: Sequence[int] | None = (),
    dtype: torch.dtype | None = torch.float32,
    allow_pickle: bool = False,
    **changes: Any,
) -> PreTrainedModel:
    """Load a checkpoint with a head (None: the one that its weights hold) and return it; `changes` go into its config.

    All weights are loaded as `dtype`. With None, each tensor keeps its precision, and safetensors are memory-mapped.
    Tensors that are not used are named in a note. `outputs` reorders the outputs of a trained head: () keeps their
    order, None replaces the head by a new one.
    Raises DistilkitError if weights are missing (with `new_head`, a missing head is newly initialised), if config.json
    does not describe them, if they are NaN or infinite, or for the reasons of read_tensors().
    """
    config, tensors = open_config(name), read_tensors(name, allow_pickle=allow_pickle)
    found = identify(config, tensors)
    head = head or found.head
    trained, names = found.head == head, list((config.id2label or {}).values())
    for key, value in changes.items():
        setattr(config, key, value)
    used = without_head(config, tensors) if trained and outputs is None else tensors
    placement = place(config, head, used, dtype or widest(tensors))
    if placement is None:
        raise DistilkitError(f"{config.model_type} has no model with a {head} head: give another checkpoint")
    said = describe(config, found.head, check_placement(name, placement, used, new_head=new_head))
    model = placement.model
    if trained and outputs is None:
        said.append(f"its head for {', '.join(names)} is replaced by a new one")
    if trained and outputs and list(outputs) != sorted(outputs):
        reorder_outputs(model, outputs)
        said.append(f"the outputs of its head are put in the order {', '.join(names[i] for i in outputs)}")
    if said:
        say_once(f"'{name}': {'; '.join(said)}")
    check_finite(name, model)
    if dtype is None:
        restore_precision(placement, tensors)
    if any(is_pooler(key) for key in placement.missing) and not new_head:
        drop_pooler(model)  # absent in the checkpoint: no pooler is better than a random one
    model.eval()
    return model


def describe(config: PretrainedConfig, found: Head, unused: Sequence[str]) -> list[str]:
    """Return notes: on a head that config.json names and the weights lack, and on the tensors that are not used."""
    said, named = list[str](), named_head(config.architectures)
    if config.architectures and named not in ("encoder", found):
        lack = f"config.json names {config.architectures[0]}, but the weights hold no {named} head"
        said.append(f"{lack}, so it is used as {'a bare encoder' if found == 'encoder' else f'a {found} model'}")
    return [*said, f"not used: {summarise(unused)}"] if unused else said


def check_finite(name: str, model: PreTrainedModel) -> None:
    """Raise DistilkitError if a weight is NaN or infinite."""
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and not bool(torch.stack(tensor.aminmax()).isfinite().all()):
            raise DistilkitError(
                f"'{name}' has NaN or infinite weights in '{key}': its training diverged, or the file is damaged; use "
                "another checkpoint"
            )


def open_as_saved(name: str, *, allow_pickle: bool = False) -> PreTrainedModel:
    """Load a checkpoint with the head that its weights hold, each tensor in its own precision."""
    return open_model(name, dtype=None, allow_pickle=allow_pickle)


def reopen(directory: Path, like: PreTrainedModel) -> PreTrainedModel:
    """Reload a saved model with plain from_pretrained and compare it with the model in memory.

    Raises DistilkitError if a weight is missing, unexpected, or not identical bit by bit. Plain from_pretrained loads a
    model of several precisions in the widest one, so its files are compared too.
    """
    plain: Any = type(like)
    model, report = plain.from_pretrained(directory, dtype="auto", output_loading_info=True)
    ours, theirs, saved = like.state_dict(), model.state_dict(), read_tensors(str(directory))
    new_poolers = {name for name in theirs if name not in ours and is_pooler(name)}  # `like` has none
    wrong = {*report["missing_keys"], *report["unexpected_keys"], *(key[0] for key in report["mismatched_keys"])}
    wrong |= {name for name in ours.keys() | theirs.keys() if not _same(ours.get(name), theirs.get(name))}
    wrong |= {name for name in ours.keys() & saved.keys() if ours[name].dtype != saved[name].dtype}
    if wrong - new_poolers:
        raise DistilkitError(
            f"the saved student does not reload identically ('{min(wrong - new_poolers)}' differs): please report this"
        )
    if new_poolers:
        drop_pooler(model)
    model.eval()
    return cast(PreTrainedModel, model)


def drop_pooler(model: PreTrainedModel) -> None:
    """Remove the encoder's pooler."""
    encoder: Any = model.base_model
    encoder.pooler = None


def _same(ours: Tensor | None, theirs: Tensor | None) -> bool:
    return ours is not None and theirs is not None and torch.equal(ours.to(theirs.dtype), theirs)


def open_tokenizer(
    name: str, model: PreTrainedModel | None = None, *, fast: bool = True, needs: Sequence[Special] = ()
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint, which must be a fast one unless `fast` is off.

    It reads text as text: a special token that is written out in it becomes ordinary tokens.
    Raises DistilkitError if there is none, if it lacks a special token of `needs`, if it cuts texts to nothing, or if
    it has an id without an embedding in the model.
    """
    with library_errors(f"'{name}' has no readable tokenizer", "add its tokenizer.json"):
        tokenizer = load_tokenizer(name)
        tried = tokenizer("a b", "c")["input_ids"] if tokenizer.is_fast else []  # may fail although loading did not
        size = max([vocabulary_size(tokenizer), *(1 + number for number in tried)])
    if (fast and not tokenizer.is_fast) or len(tokenizer) < MIN_TOKENS:
        raise DistilkitError(
            f"'{name}' has no fast tokenizer: put its tokenizer.json (or vocab files) into the directory"
        )
    table = None if model is None else getattr(model.get_input_embeddings(), "weight", None)
    if table is not None and size > len(table):
        raise DistilkitError(
            f"the tokenizer of '{name}' needs {size} embeddings (its largest id is {size - 1}), but its model has "
            f"{len(table)} of them: save the model again after resize_token_embeddings"
        )
    check_special_tokens(tokenizer, needs, name)
    check_limit(tokenizer, name)
    return tokenizer


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that reads special tokens in text as text, without a reference to code of its own."""
    hub_id, revision = split_revision(str(name))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        hub_id, revision=revision, trust_remote_code=False
    )
    tokenizer.split_special_tokens = True
    tokenizer.init_kwargs.pop("auto_map", None)
    tokenizer._auto_map = None  # noqa: SLF001 - transformers has no public name for it
    return tokenizer


def redefine(tokenizer: PreTrainedTokenizerBase, definition: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer with another tokenizer.json and the same settings."""
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        for path in Path(directory).iterdir():
            if path.name not in ("tokenizer_config.json", "special_tokens_map.json"):
                path.unlink()  # vocab.txt and the like; tokenizer.json replaces them
        (Path(directory) / "tokenizer.json").write_text(definition, encoding="utf-8")
        return load_tokenizer(directory)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a model and its tokenizer."""
    with staging(directory) as partial:
        try:
            model.save_pretrained(partial)
            model.config.dtype = widest(model.state_dict())  # save_pretrained would record that of the first weight
            model.config.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        except SafetensorError as error:  # its own error for a full disk
            raise OSError(errno.ENOSPC, first_words(error)) from None
        except Exception as error:
            if "os error" not in str(error):  # tokenizers has no class of its own for a full disk
                raise
            raise OSError(errno.ENOSPC, first_words(error)) from None


def same_vocabulary(a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase) -> bool:
    """Return whether two tokenizers have the same tokens with the same ids."""
    return a.get_vocab() == b.get_vocab()


def max_tokens(model: PreTrainedModel) -> int | None:
    """Return the number of tokens that a model has positions for, None if there is no limit.

    RoBERTa-like models count positions from the padding id + 1, so part of their position table is unused.
    """
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    for name, table in model.named_modules():
        rows, padding = getattr(table, "weight", None), getattr(table, "padding_idx", None)
        if name.endswith("position_embeddings") and isinstance(rows, Tensor):
            usable = len(rows) - (0 if padding is None else padding + 1)
            return usable if limit is None else min(limit, usable)
    return limit


def weights_hash(name: str) -> str:
    """Return a fingerprint of a checkpoint's weights: a hash of the files, or the commit of a hub id."""
    files = sorted(Path(name).glob("*.safetensors"))
    if not files:
        return f"{split_revision(name)[0]}@{open_config(name)._commit_hash}"  # noqa: SLF001 - transformers has no public name for it
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()
