"""Open and save models and tokenizers: the only caller of from_pretrained and save_pretrained."""

import errno
import hashlib
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import transformers
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilkit.errors import DistilkitError
from distilkit.files import is_exported, readable_by_umask, sync

if TYPE_CHECKING:
    from transformers.exporters import ExportedModel

Head = Literal[
    "masked-lm", "sequence-classification", "question-answering", "token-classification", "multiple-choice", "encoder"
]

AUTO = {
    "masked-lm": transformers.AutoModelForMaskedLM,
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "token-classification": transformers.AutoModelForTokenClassification,
    "multiple-choice": transformers.AutoModelForMultipleChoice,
    "encoder": transformers.AutoModel,
}
HEADS: dict[str, Head] = {
    "ForMaskedLM": "masked-lm",
    "ForPreTraining": "masked-lm",
    "WithLMHead": "masked-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForQuestionAnswering": "question-answering",
    "ForTokenClassification": "token-classification",
    "ForMultipleChoice": "multiple-choice",
}

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
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, HFValidationError) as error:
        raise DistilkitError(_unreachable(name, path, error)) from None
    # Raised for an unknown model type, custom code, or values of a wrong type.
    except (ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise DistilkitError(
            f"'{name}' has a config.json that transformers cannot read ({first_line(error)}): check it"
        ) from None
    kind = None
    if type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        kind = "not a masked-LM encoder"
    elif config.is_encoder_decoder:
        kind = "an encoder-decoder, not a masked-LM encoder"
    elif hasattr(config, "vision_config"):
        kind = "a vision-language model, not a masked-LM encoder of text alone"
    if kind:
        raise DistilkitError(f"'{name}' is a {config.model_type} checkpoint, {kind}: give a BERT-like one")
    return config


def head_of(config: PretrainedConfig) -> Head:
    """Return the head that a checkpoint's config names, or "encoder" if it names none."""
    architecture = (config.architectures or ["ForMaskedLM"])[0]
    return next((head for ending, head in HEADS.items() if ending in architecture), "encoder")


def _unreachable(name: str, path: Path, error: Exception) -> str:
    if path.is_dir():
        return f"'{name}' cannot be read ({first_line(error)}): check its config.json"
    return f"no directory '{name}', and no such checkpoint on the hub ({first_line(error)}): give a local directory"


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, short enough for ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".:")


def open_model(
    name: str,
    head: Head,
    *,
    new_head: bool = False,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    allow_pickle: bool = False,
    **changes: Any,
) -> PreTrainedModel:
    """Load a checkpoint with a head, in fp32 or in its own dtype ("auto"); `changes` go into its config.

    In its own dtype, safetensors are memory-mapped: a weight costs time and memory only when it is first used.
    Raises DistilkitError if weights are missing (with `new_head`, a missing head is newly initialised), if they are
    only available as a pickle (unless `allow_pickle`, which unpickles tensors only), or if they are damaged.
    """
    config = open_config(name)
    if is_exported(name):
        raise DistilkitError(f"'{name}' is an exported model: give the checkpoint that it was made from")
    for key, value in changes.items():
        setattr(config, key, value)
    pickled = Path(name).is_dir() and not list(Path(name).glob("*.safetensors"))
    model: PreTrainedModel
    try:
        model, report = AUTO[head].from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=None if allow_pickle else True,  # None: safetensors if there are any
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=new_head,  # a head of another task's width is replaced
        )
    except pickle.UnpicklingError as error:
        raise DistilkitError(
            f"weights of '{name}' contain more than tensors ({first_line(error)}): convert them to safetensors"
        ) from None
    except (OSError, SafetensorError) as error:
        if pickled and not allow_pickle:
            raise DistilkitError(
                f"'{name}' has no model.safetensors, and pickles are not read: convert its weights"
                " (distilkit init … --allow-pickle does)"
            ) from None
        raise DistilkitError(f"weights of '{name}' cannot be read ({first_line(error)}): save them again") from None
    except (ValueError, RuntimeError) as error:
        raise DistilkitError(
            f"weights of '{name}' do not fit its config.json ({first_line(error)}): check it"
        ) from None
    missing = set(report["missing_keys"]) | {key[0] for key in report["mismatched_keys"]}
    _refuse_missing(name, head, model, missing, new_head=new_head)
    if any(".pooler." in f".{key}" for key in missing) and not new_head:
        drop_pooler(model)  # absent in the checkpoint: no pooler is better than a random one
    model.eval()
    return model


def open_as_saved(name: str, *, allow_pickle: bool = False) -> PreTrainedModel:
    """Load a checkpoint with the head and dtype that it was saved with."""
    return open_model(name, head_of(open_config(name)), dtype="auto", allow_pickle=allow_pickle)


def reopen(directory: Path, like: PreTrainedModel) -> PreTrainedModel:
    """Reload a saved model with plain from_pretrained and compare it with the model in memory.

    Raises DistilkitError if a weight is missing, unexpected, or not identical bit by bit.
    """
    head = head_of(open_config(str(directory)))
    model, report = AUTO[head].from_pretrained(directory, dtype="auto", output_loading_info=True)
    ours, theirs = like.state_dict(), model.state_dict()
    new_poolers = {name for name in theirs if name not in ours and ".pooler." in f".{name}"}  # `like` has none
    wrong = {*report["missing_keys"], *report["unexpected_keys"], *(key[0] for key in report["mismatched_keys"])}
    wrong |= {name for name in ours.keys() | theirs.keys() if not _same(ours.get(name), theirs.get(name))}
    if wrong - new_poolers:
        raise DistilkitError(
            f"the saved student does not reload identically, '{min(wrong - new_poolers)}' differs: please report this"
        )
    if new_poolers:
        drop_pooler(model)
    model.eval()
    return cast(PreTrainedModel, model)


def drop_pooler(model: PreTrainedModel) -> None:
    """Remove the encoder's pooler."""
    encoder: Any = model.base_model
    encoder.pooler = None


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b)


def _refuse_missing(name: str, head: Head, model: PreTrainedModel, missing: set[str], *, new_head: bool) -> None:
    prefix = model.base_model_prefix + "."
    in_encoder = sorted(key for key in missing if key.startswith(prefix) and ".pooler." not in f".{key}")
    if head == "encoder":
        in_encoder = sorted(key for key in missing if "pooler." not in key)
    if in_encoder:
        raise DistilkitError(
            f"'{name}' is missing encoder weights, for example '{in_encoder[0]}': the checkpoint is damaged or of "
            "another architecture"
        )
    if missing and not new_head and head == "masked-lm":
        raise DistilkitError(
            f"'{name}' has no trained masked-LM head ('{min(missing)}' is missing): train one with "
            "distilkit distill … --objective mlm --new-head"
        )
    if missing and not new_head and head != "encoder":
        raise DistilkitError(f"'{name}' has no trained {head} head: train one with distilkit finetune")


def open_tokenizer(name: str, model: PreTrainedModel | None = None, *, fast: bool = True) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint, which must be a fast one unless `fast` is off.

    Raises DistilkitError if there is none, or if it has tokens without an embedding in the model.
    """
    open_config(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise DistilkitError(
            f"'{name}' has no readable tokenizer ({first_line(error)}): add its tokenizer.json"
        ) from None
    if (fast and not tokenizer.is_fast) or len(tokenizer) < 6:
        raise DistilkitError(
            f"'{name}' has no fast tokenizer: put its tokenizer.json (or vocab files) into the directory"
        )
    table = None if model is None else getattr(model.get_input_embeddings(), "weight", None)
    if table is not None and len(tokenizer) > len(table):
        raise DistilkitError(
            f"the tokenizer of '{name}' has {len(tokenizer)} tokens, but its model {len(table)} embeddings: "
            "save the model again after resize_token_embeddings"
        )
    return tokenizer


def redefine(tokenizer: PreTrainedTokenizerBase, definition: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer with another tokenizer.json and the same settings."""
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        for path in Path(directory).iterdir():
            if path.name not in ("tokenizer_config.json", "special_tokens_map.json"):
                path.unlink()  # vocab.txt and the like; tokenizer.json replaces them
        (Path(directory) / "tokenizer.json").write_text(definition, encoding="utf-8")
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(directory, trust_remote_code=False))


def save(model: "PreTrainedModel | ExportedModel", tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a model and its tokenizer: write to a temporary directory first, then move the files."""
    partial = directory / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    except SafetensorError as error:  # safetensors' own error for a full disk
        raise OSError(errno.ENOSPC, first_line(error)) from None
    for path in sorted(partial.iterdir()):
        readable_by_umask(path)  # safetensors makes files that only their owner can read
        sync(path)
        path.replace(directory / path.name)
    partial.rmdir()


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
        return f"{name}@{open_config(name)._commit_hash}"  # noqa: SLF001 - transformers has no public name for it
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()
