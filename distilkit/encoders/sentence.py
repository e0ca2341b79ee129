"""Sentence encoders: an encoder with the modules that turn its last hidden states into an embedding of the text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from tokenizers import normalizers
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from distilkit.encoders import checkpoint
from distilkit.encoders.forward import Batch, encoder_states, input_names
from distilkit.encoders.sentence_layout import Layout, new_layout, read_layout
from distilkit.encoders.sentence_modules import Pooling, SentenceHead, make_head
from distilkit.errors import DistilkitError
from distilkit.progress import say

NEIGHBOURS = 10
LONGEST_TEXT = 2**20  # tokens, for an encoder without a limit
BARE = Layout(modules=())  # of an encoder without modules.json


class SentenceEncoder(nn.Module):
    """An encoder with its tokenizer and modules: texts to embeddings.

    `prompts` are texts to put in front, by name; `default_prompt` is the one in front of every text.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, head: SentenceHead, layout: Layout
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.head, self.layout = model, tokenizer, head, layout
        self.inputs = input_names(cast(PreTrainedModel, model.base_model))
        self.max_length = max_text_tokens(model, tokenizer, layout)
        settings = layout.model_settings
        self.prompts: dict[str, str] = {name: text or "" for name, text in (settings.get("prompts") or {}).items()}
        self.default_prompt = self.prompts.get(settings.get("default_prompt_name") or "", "")

    def check_room(self, name: str) -> "SentenceEncoder":
        """Return the encoder.

        Raises DistilkitError if special tokens and the default prompt leave no token for a text.
        """
        taken = len(self.tokenizer(self.default_prompt)["input_ids"])
        if taken >= self.max_length:
            raise DistilkitError(
                f"'{name}' cuts texts at {self.max_length} tokens, and special tokens and the default prompt take "
                f"{taken}: raise max_seq_length in its sentence_bert_config.json, or shorten the prompt"
            )
        return self

    @property
    def width(self) -> int:
        """The number of components of an embedding."""
        like = next(self.model.parameters())
        states = torch.zeros(1, 1, self.model.config.hidden_size, device=like.device, dtype=like.dtype)
        return int(self.head(states, torch.ones(1, 1, device=like.device)).shape[-1])

    @property
    def pooling(self) -> tuple[str, ...]:
        """The modes of its Pooling."""
        return cast(Pooling, self.head.parts[0]).modes

    def with_dense(self, width: int) -> "SentenceEncoder":
        """Return the encoder with a new Dense module that gives its embeddings this width."""
        layout = self.layout.with_weights(self.head.weights())
        layout = layout if layout.modules else new_layout(self.model.config.hidden_size, self.pooling, normalize=False)
        return wrap("student", self.model, self.tokenizer, layout.with_dense(self.width, width))

    def tokenize(self, texts: Sequence[str], prompt: str | None = None) -> BatchEncoding:
        """Return the model's inputs for each text, cut at the encoder's maximum length and not padded."""
        prompt = self.default_prompt if prompt is None else prompt
        return cast(
            BatchEncoding,
            self.tokenizer([prompt + text for text in texts], truncation=True, max_length=self.max_length),
        )

    def prompt_tokens(self, prompt: str | None = None) -> int:
        """Return the number of tokens that a prompt puts in front of a text, CLS included."""
        prompt = self.default_prompt if prompt is None else prompt
        if not prompt:
            return 0
        ids = self.tokenizer(prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    def pad(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Pad tokenised texts to the longest; return tensors (B, T)."""
        return dict(self.tokenizer.pad(cast(Any, list(rows)), return_tensors="pt"))

    def forward(self, batch: Batch, prompt_tokens: int = 0) -> Tensor:
        """Return the embeddings (B, D) of a padded batch."""
        mask = batch["attention_mask"]
        inputs = {name: batch[name] for name in self.inputs if name in batch}
        states = encoder_states(self.model, inputs).unflatten(0, mask.shape)  # (B, T, H)
        return cast(Tensor, self.head(states, mask, prompt_tokens))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, batch_size: int = 32, prompt: str | None = None) -> Tensor:
        """Return the embeddings (N, D) of texts in fp32 on the CPU, computed in batches of about one length.

        `prompt` is put in front of every text (default: the encoder's default prompt).
        """
        device, training = self.model.device, self.training
        rows = self.tokenize(texts, prompt)
        columns, prompt_tokens = list(rows.keys()), self.prompt_tokens(prompt)
        order = sorted(range(len(texts)), key=lambda number: -len(rows["input_ids"][number]))
        self.eval()
        found: dict[int, Tensor] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self.pad([{name: rows[name][number] for name in columns} for number in chosen])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            found |= zip(chosen, self(batch, prompt_tokens).float().cpu(), strict=True)
        self.train(training)
        return torch.stack([found[number] for number in range(len(texts))]) if found else torch.empty(0, 0)

    def save(self, directory: Path) -> None:
        """Write the checkpoint, with the weights that its modules have now."""
        checkpoint.save(self.model, self.tokenizer, directory)
        self.layout.with_weights(self.head.weights()).write(directory)


def max_text_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layout: Layout) -> int:
    """Return the number of tokens at which texts are cut: the layout's, else the tokenizer's; at most the positions."""
    longest = layout.input_settings.get("max_seq_length") or tokenizer.model_max_length
    return int(min(longest, checkpoint.max_tokens(model) or LONGEST_TEXT, LONGEST_TEXT))


def wrap(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layout: Layout | None
) -> SentenceEncoder:
    """Return the sentence encoder of an open checkpoint. A bare encoder (layout None) takes the mean of its tokens.

    Raises DistilkitError if a module is not supported or does not fit, or if texts are cut to nothing.
    """
    if layout is None:
        say(f"'{name}' has no modules.json: its embedding of a text is the mean over the text's tokens")
    found = layout or BARE
    if found.input_settings.get("do_lower_case"):
        _lower_case(tokenizer)
    head = make_head(name, found, model.config.hidden_size).to(model.dtype)
    return SentenceEncoder(model, tokenizer, head, found).check_room(name).eval()


def open_sentence_encoder(name: str) -> SentenceEncoder:
    """Open a checkpoint as a sentence encoder, in fp32.

    Raises DistilkitError if it is not an encoder, or if it has a module that is not supported.
    """
    model = checkpoint.open_model(name, "encoder")
    return wrap(name, model, checkpoint.open_tokenizer(name, model, fast=False), read_layout(name))


def _lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a fast tokenizer lower the case of a text first, as sentence-transformers does with do_lower_case."""
    core = tokenizer.backend_tokenizer
    if '"type":"Lowercase"' not in core.to_str() and '"lowercase":true' not in core.to_str():
        before = [] if core.normalizer is None else [core.normalizer]
        core.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])


def mean_cosine(ours: Tensor, theirs: Tensor) -> float:
    """Return the mean cosine of two embeddings of the same texts, (N, D) each."""
    return float(F.cosine_similarity(ours.float(), theirs.float(), dim=-1).mean())


def neighbour_overlap(ours: Tensor, theirs: Tensor, count: int = NEIGHBOURS) -> float:
    """Return the share of nearest neighbours that two embeddings of the same texts, (N, D) and (N, D'), have in common.

    It is a mean over the texts. A text's neighbours are the `count` other texts with the largest cosine, or all others
    if there are fewer.
    """
    count = min(count, len(ours) - 1)
    if count < 1:
        return 1.0
    nearest = []
    for vectors in (ours, theirs):
        unit = F.normalize(vectors.float(), dim=-1)
        nearest.append((unit @ unit.T).fill_diagonal_(-torch.inf).topk(count).indices)  # (N, count)
    shared = (nearest[0].unsqueeze(2) == nearest[1].unsqueeze(1)).any(2)  # (N, count)
    return float(shared.float().mean())
