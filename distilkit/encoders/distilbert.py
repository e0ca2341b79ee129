"""BERT weights in DistilBERT's published form: no token types, no pooler, the vocabulary head kept."""

import re

import transformers
from transformers import BertConfig, DistilBertConfig, PreTrainedModel

from distilkit.encoders.surgery import assign_tensors, build_empty, tensors_by_name
from distilkit.errors import DistilkitError

CLASSES = {
    "BertForMaskedLM": transformers.DistilBertForMaskedLM,
    "BertForQuestionAnswering": transformers.DistilBertForQuestionAnswering,
    "BertForTokenClassification": transformers.DistilBertForTokenClassification,
    "BertModel": transformers.DistilBertModel,
}
# BERT's config fields and their names in DistilBERT.
FIELDS = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}
# Config fields that have the same name in both.
SAME = (
    "vocab_size", "max_position_embeddings", "pad_token_id", "initializer_range", "tie_word_embeddings", "id2label",
    "label2id", "dtype",
)  # fmt: skip
# Patterns of BERT's tensor names and their DistilBERT names, as in the original extraction script. All are applied.
NAMES = (
    (r"^bert\.", "distilbert."),
    (r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.", r"transformer.layer.\1.attention.\2_lin."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"transformer.layer.\1.attention.out_lin."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"transformer.layer.\1.sa_layer_norm."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"transformer.layer.\1.ffn.lin1."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"transformer.layer.\1.ffn.lin2."),
    (r"encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"transformer.layer.\1.output_layer_norm."),
    (r"attention\.(q|k|v)(?:uery|ey|alue)_lin\.", r"attention.\1_lin."),
    (r"^cls\.predictions\.transform\.dense\.", "vocab_transform."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "vocab_layer_norm."),
    (r"^cls\.predictions\.decoder\.", "vocab_projector."),
    (r"^cls\.predictions\.bias$", "vocab_projector.bias"),
)
LAYER_NORM_EPS = 1e-12  # hard-coded in DistilBERT


def convert(bert: PreTrainedModel) -> PreTrainedModel:
    """Return the DistilBERT that computes what a BERT computes on single segments; they share memory.

    BERT adds the embedding of token type 0 at every position, so it is folded into the position embeddings (the
    original extraction script dropped it).
    Raises DistilkitError if DistilBERT has no equivalent form.
    """
    source = bert.config
    if type(bert).__name__ not in CLASSES or not isinstance(source, BertConfig):
        raise DistilkitError(
            f"--architecture distilbert cannot hold a {type(bert).__name__}: give a BERT for masked LM, "
            "question answering or token classification, or without a head"
        )
    if source.layer_norm_eps != LAYER_NORM_EPS or source.is_decoder or source.hidden_act not in ("gelu", "relu"):
        raise DistilkitError(
            "--architecture distilbert requires layer_norm_eps 1e-12 and gelu or relu, which this teacher "
            "does not have: remove --architecture"
        )
    values = {new: getattr(source, old) for old, new in FIELDS.items()}
    values |= {name: getattr(source, name) for name in SAME}
    student = build_empty(bert, DistilBertConfig(**values), CLASSES[type(bert).__name__])
    tensors = tensors_by_name(bert)
    prefix = "" if bert.base_model is bert else "bert."
    token_types = tensors.pop(f"{prefix}embeddings.token_type_embeddings.weight")  # (2, H)
    positions = f"{prefix}embeddings.position_embeddings.weight"
    tensors[positions] = tensors[positions] + token_types[0]  # (P, H)
    renamed = {rename(name): tensor for name, tensor in tensors.items() if ".pooler." not in f".{name}"}
    return assign_tensors(student, renamed)


def rename(name: str) -> str:
    """Return a BERT tensor's name in DistilBERT."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name
