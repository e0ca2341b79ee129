"""Tiny models, a tokenizer, a corpus and task samples, built once a run; nothing is downloaded.

Fixtures import what is heavy themselves: the process in which pytest-xdist hands out the tests needs none of it.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = os.environ.get("DISTILKIT_TEST_THREADS", "1")  # results must not depend on it

import inspect
import json
import random
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TINY = {"vocab_size": 400, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
ROBERTA = {"max_position_embeddings": 98, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
DISTILBERT = {"vocab_size": 400, "dim": 32, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 96}
FAMILIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "bert": lambda n: {"num_hidden_layers": n, "max_position_embeddings": 96, **TINY},
    "roberta": lambda n: {"num_hidden_layers": n, **ROBERTA, **TINY},
    "distilbert": lambda n: {"n_layers": n, **DISTILBERT},
}


@pytest.fixture(scope="session", autouse=True)
def draw_curve() -> Iterator[Callable[..., None]]:
    """Leave learning curves empty, which take half the time of a tiny run; returns the function that draws them."""
    from distilkit.training import learning_curve

    drawn = learning_curve.draw_curve
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_curve, "draw_curve", lambda figure, lines: None)
        yield drawn


@pytest.fixture(scope="session")
def prose() -> list[str]:
    """Real English sentences: the docstrings of a few standard modules."""
    modules = (textwrap, random, json, inspect)
    docs = [inspect.getdoc(item) or "" for module in modules for _, item in inspect.getmembers(module)]
    lines = [" ".join(paragraph.split()) for doc in docs for paragraph in doc.split("\n\n")]
    return sorted({line for line in lines if len(line.split()) > 6})


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, prose: list[str]) -> Path:
    """A text file, a document a line."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(prose) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(prose: list[str]) -> "PreTrainedTokenizerFast":
    """A WordPiece tokenizer of 400 entries, trained on the prose: ids 0..4 are PAD UNK CLS SEP MASK."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(prose, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    learnt = sorted(set(core.get_vocab()) - set(special))  # the trainer numbers equally frequent ones anew each time
    vocabulary = {token: number for number, token in enumerate([*special, *learnt])}
    core.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=96,
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for the tokens of this test alone."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def make_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: "PreTrainedTokenizerFast"
) -> Callable[..., Path]:
    """Return a function that writes a tiny checkpoint (family, layers, auto class, seed) and returns its directory."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    def make(
        family: str = "bert", layers: int = 4, auto: Any = AutoModelForMaskedLM, seed: int = 0, **changes: object
    ) -> Path:
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **FAMILIES[family](layers))
        for name, value in changes.items():
            setattr(config, name, value)
        model = auto.from_config(config)
        with torch.no_grad():  # fresh norms and biases are ones and zeros, which hide a swapped tensor
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        directory = tmp_path_factory.mktemp(f"{family}-{layers}")
        model.save_pretrained(directory)
        tokenizer.backend_tokenizer.no_padding()  # an earlier test may have padded with it, which would be saved
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.save_pretrained(directory)
        return directory

    return make


@pytest.fixture(scope="session")
def teacher(make_checkpoint: Callable[..., Path]) -> Path:
    """A tiny 4-layer BERT with a masked-LM head."""
    return make_checkpoint("bert", 4)


@pytest.fixture(scope="session")
def make_sentence_encoder(make_checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes a tiny sentence encoder of sentence-transformers: BERT, Pooling, Dense."""
    from transformers import AutoModel

    def make(layers: int = 4, *, pooling: str = "cls", dense: int = 24, **changes: object) -> Path:
        from sentence_files import write_modules

        directory = make_checkpoint("bert", layers, AutoModel, **changes)
        write_modules(directory, pooling, dense)
        return directory

    return make


@pytest.fixture(scope="session")
def classifier(make_checkpoint: Callable[..., Path]) -> Path:
    """A tiny 1-layer RoBERTa for two classes, yes and no."""
    from transformers import AutoModelForSequenceClassification

    labels = {0: "no", 1: "yes"}
    return make_checkpoint("roberta", 1, AutoModelForSequenceClassification, id2label=labels, type_vocab_size=1)


@pytest.fixture(scope="session")
def exported(classifier: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The classifier as `export` writes it: once for all processes of pytest-xdist, because it takes a while."""
    from exports import installed

    from distilkit.commands.export import export
    from distilkit.options.export import ExportOptions

    if not installed("onnx"):
        pytest.skip("requires distilkit[onnx]")
    own = tmp_path_factory.getbasetemp()
    directory = (own if worker_id == "master" else own.parent) / "exported"
    with FileLock(f"{directory}.lock"):
        if not directory.exists():
            export(ExportOptions(model=str(classifier), output=directory))
    return directory


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A directory with the checkpoints and records of a whole chain, with figures made up to be checked by hand."""
    from records import write_chain

    return write_chain(tmp_path / "chain")
