"""Open and save models and tokenizers: the only caller of from_pretrained and save_pretrained."""

import errno
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilkit.errors import DistilkitError

Head = Literal["masked-lm", "sequence-classification", "question-answering", "encoder"]

AUTO = {
    "masked-lm": transformers.AutoModelForMaskedLM,
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "encoder": transformers.AutoModel,
}
ENCODER_DECODERS = ("ForConditionalGeneration", "ForSpeechSeq2Seq")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def open_config(name: str) -> PretrainedConfig:
    """Read the config of a masked-LM-family encoder, a directory or a hub id.

    Raises DistilkitError where there is none, where it isn't an encoder, or where the hub is out of reach.
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
    except (ValueError, KeyError) as error:  # an unknown model type, or code that only trust_remote_code would run
        raise DistilkitError(f"'{name}' has a config that transformers cannot read ({_first_line(error)})") from None
    if type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING or config.is_encoder_decoder:
        raise DistilkitError(
            f"'{name}' is a {config.model_type} checkpoint, not a masked-LM encoder: give a BERT-like one"
        )
    return config


def _unreachable(name: str, path: Path, error: Exception) -> str:
    if path.is_dir():
        return f"'{name}' cannot be read ({_first_line(error)})"
    return f"no directory '{name}', and the hub gives no such checkpoint ({_first_line(error)}): give a local directory"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".:")


def open_model(name: str, head: Head, *, new_head: bool = False, **changes: Any) -> PreTrainedModel:
    """Load a checkpoint in fp32 with a head; `changes` go into its config.

    Raises DistilkitError where weights are missing (unless `new_head` lets the head be fresh), where they are only
    pickled, or where they are damaged.
    """
    config = open_config(name)
    for key, value in changes.items():
        setattr(config, key, value)
    model: PreTrainedModel
    try:
        model, report = AUTO[head].from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=new_head,  # a head of another task's width is replaced
        )
    except (OSError, SafetensorError) as error:
        if Path(name).is_dir() and not list(Path(name).glob("*.safetensors")):
            raise DistilkitError(
                f"'{name}' has no model.safetensors: convert its weights, pickles are not read"
            ) from None
        raise DistilkitError(f"weights of '{name}' cannot be read ({_first_line(error)})") from None
    except (ValueError, RuntimeError) as error:
        raise DistilkitError(f"weights of '{name}' do not fit its config ({_first_line(error)})") from None
    _refuse_missing(
        name,
        head,
        model,
        set(report["missing_keys"]) | {key[0] for key in report["mismatched_keys"]},
        new_head=new_head,
    )
    model.eval()
    return model


def _refuse_missing(name: str, head: Head, model: PreTrainedModel, missing: set[str], *, new_head: bool) -> None:
    prefix = model.base_model_prefix + "."
    body = sorted(key for key in missing if key.startswith(prefix) and ".pooler." not in f".{key}")
    if head == "encoder":
        body = sorted(key for key in missing if "pooler." not in key)
    if body:
        raise DistilkitError(
            f"'{name}' lacks weights of its body, among them '{body[0]}': it is damaged or another model"
        )
    if missing and not new_head and head == "masked-lm":
        raise DistilkitError(
            f"'{name}' has no trained masked-LM head ('{min(missing)}' is missing): train one with "
            "distilkit distill … --objective mlm --new-head"
        )
    if missing and not new_head and head != "encoder":
        raise DistilkitError(f"'{name}' has no trained {head} head: train one with distilkit finetune")


def open_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a checkpoint."""
    open_config(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise DistilkitError(f"'{name}' has no tokenizer that can be read ({_first_line(error)})") from None
    if not tokenizer.is_fast or len(tokenizer) < 6:
        raise DistilkitError(
            f"'{name}' has no fast tokenizer: put its tokenizer.json (or vocab files) into the directory"
        )
    return tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write model and tokenizer into a directory: under a temporary name first, then moved in."""
    partial = directory / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    except SafetensorError as error:  # safetensors wraps a full disk in an error of its own
        raise OSError(errno.ENOSPC, _first_line(error)) from None
    for path in sorted(partial.iterdir()):
        path.replace(directory / path.name)
    partial.rmdir()


def same_vocabulary(a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase) -> bool:
    """Say whether two tokenizers give every token the same id."""
    return a.get_vocab() == b.get_vocab()


def max_tokens(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model has positions for, None where there is no limit.

    RoBERTa and its kin count positions from the padding id + 1, and their table says so.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    return limit


def weights_bytes(directory: str | Path) -> int:
    """Return the size of a checkpoint's weight files in bytes (0 for a hub id that isn't local)."""
    return sum(path.stat().st_size for path in Path(directory).glob("*.safetensors"))
