"""A tiny teacher of every masked-LM architecture, and what init makes of it: the rows of docs/architectures.md."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from distilkit.commands.init import init
from distilkit.errors import DistilkitError
from distilkit.options.init import InitOptions

NAMES: list[str] = sorted(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
LAYERS, VOCABULARY = 6, 120
DEPTHS = ("num_hidden_layers", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
SIZES = {
    **dict.fromkeys(("hidden_size", "dim", "emb_dim", "d_model", "embedding_size"), 32),
    **dict.fromkeys(DEPTHS, LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"), 4),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_inner", "encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("sliding_window", "local_attention"), 8),
    **dict.fromkeys(("vocab_size", "n_words"), VOCABULARY),
    "head_dim": 8,
    "d_head": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "type_vocab_size": 2,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
# What a family needs beside those, or in their stead.
OWN: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "conv_kernel_size": 3},
    "electra": {"embedding_size": 16},
    "esm": {"mask_token_id": 4, "position_embedding_type": "rotary", "token_dropout": False},
    "funnel": {"block_sizes": [2, 2, 2], "num_decoder_layers": 2, "hidden_size": None, "num_hidden_layers": None},
    "longformer": {"attention_window": [4, 8, 4, 8, 4, 8]},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 16},
    "mobilebert": {"true_hidden_size": 16, "intra_bottleneck_size": 16},
    "neomme": {"head_dim": 16, "embedding_rank": 8, "embedding_dim": 8, "patch_size": 4},
    "nystromformer": {"segment_means_seq_len": 8, "num_landmarks": 8},
    "perceiver": {
        "num_latents": 8, "d_latents": 32, "qk_channels": 32, "v_channels": 32, "num_self_attends_per_block": 6,
        "num_self_attention_heads": 4, "num_cross_attention_heads": 4,
    },
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 8), "attn_layers": ["local"] * LAYERS},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "roc_bert": {
        "pronunciation_embed_dim": 16, "pronunciation_vocab_size": 50, "shape_embed_dim": 16, "shape_vocab_size": 50,
    },
    "ultrabert": {"prediction_head_size": 16},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": None},
}  # fmt: skip
CONFIG_ALONE = {"modernvbert", "ultravbert", "bart", "mbart", "mvp"}  # refused before any weight is read
# Choices that a family's default of 0,2,5 isn't; their reason is what init says of the default.
KEEP = {"funnel": (0, 2, 4)}


class Row(NamedTuple):
    """What init made of a teacher."""

    model_type: str
    architecture: str
    result: str
    difference: float | None

    def markdown(self) -> str:
        """Return the row of the table."""
        difference = "" if self.difference is None else "under 1e-5" if self.difference else "0"
        return f"| {self.model_type} | {self.architecture} | {self.result} | {difference} |"


def write_teacher(model_type: str, directory: Path, layers: int = LAYERS) -> None:
    """Write a tiny checkpoint of random, perturbed weights with a tokenizer."""
    config_class = type(AutoConfig.for_model(model_type))
    if model_type in CONFIG_ALONE:
        config = config_class()
        config.architectures = [MODEL_FOR_MASKED_LM_MAPPING_NAMES[model_type]]
        config.save_pretrained(directory)
    else:
        known = SIZES.keys() & config_class().to_dict().keys()
        wanted = {name: layers if name in DEPTHS else SIZES[name] for name in known} | OWN.get(model_type, {})
        torch.manual_seed(0)
        config = config_class(
            **{name: value for name, value in wanted.items() if value is not None or name not in SIZES}
        )
        model = AutoModelForMaskedLM.from_config(config)
        with torch.no_grad():  # fresh norms and biases are ones and zeros, which hide a swapped tensor
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            for module in model.modules():  # which training leaves at 0, and Funnel's loading sets to 0
                if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx] = 0
        model.save_pretrained(directory)
    write_tokenizer(directory)


def write_tokenizer(directory: Path) -> None:
    """Write a tokenizer of 120 words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(directory)


def try_init(model_type: str, place: Path) -> Row:
    """Write a teacher, halve it, and say what became of it: the student is in place/student."""
    write_teacher(model_type, place / "teacher")
    name, note, keep = MODEL_FOR_MASKED_LM_MAPPING_NAMES[model_type], "", None

    def halve(**options: Any) -> float:
        done = init(InitOptions(teacher=str(place / "teacher"), output=place / "student", **options))
        return done.metrics["max_difference"]

    try:
        difference = halve()
    except DistilkitError as error:
        reason = plain(str(error), place)
        keep, layers = KEEP.get(model_type), 3 if "--layers N" in reason else None
        if not (keep or layers):
            return Row(model_type, name, f"refused: {reason}", None)
        difference = halve(keep=keep, layers=layers)
        note = f" with `--keep {','.join(map(str, keep))}`" if keep else " with `--layers 3`"
        note += f"; otherwise refused: {reason}"
    result = "exact" if difference == 0 else "exact but for rounding"
    return Row(model_type, name, result + note, difference)


def plain(reason: str, place: Path) -> str:
    """Take a machine's paths out of a message, and what would end a cell of the table."""
    return re.sub(rf"'{re.escape(str(place))}/teacher' is", "is", reason).replace("|", "\\|")
