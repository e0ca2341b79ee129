"""Sentence encoders give the embeddings that sentence-transformers gives."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel

from distilkit.encoders.sentence import mean_cosine, neighbour_overlap, open_sentence_encoder
from distilkit.errors import DistilkitError

sentence_transformers = pytest.importorskip("sentence_transformers")
library = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
AFTER: dict[str, Callable[[], list[nn.Module]]] = {
    **dict.fromkeys(MODES, list),
    "cls,mean,lasttoken": list,
    "normalize": lambda: [library.Normalize()],
    "dense": lambda: [library.Dense(32, 16), library.Normalize()],
    "dense-identity": lambda: [library.Dense(32, 48, bias=False, activation_function=nn.Identity())],
    "dense-residual": lambda: [library.Dense(32, 16, activation_function=nn.GELU(), use_residual=True)],
    "dense-residual-same": lambda: [library.Dense(32, 32, use_residual=True)],
    "layer-norm": lambda: [library.LayerNorm(32), library.Dropout(0.5), library.Normalize()],
}


@pytest.fixture(scope="module")
def bare(make_checkpoint: Callable[..., Path]) -> Path:
    """A tiny BERT without a head."""
    return make_checkpoint("bert", 2, AutoModel)


@pytest.fixture
def make_library_model(bare: Path, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """Return a function that saves a model of the real library and returns both."""

    def make(kind: str = "mean", **settings: Any) -> tuple[Any, Path]:
        torch.manual_seed(0)
        modes = tuple(kind.split(",")) if set(kind.split(",")) <= set(MODES) else ("mean",)
        encoder = library.Transformer(str(bare), max_seq_length=settings.pop("max_seq_length", None))
        pooling = library.Pooling(32, modes, include_prompt=settings.pop("include_prompt", True))
        model = sentence_transformers.SentenceTransformer(
            modules=[encoder, pooling, *AFTER.get(kind, list)()], device="cpu", **settings
        )
        model.eval().save(str(tmp_path / "model"), create_model_card=False)
        return model, tmp_path / "model"

    return make


def texts(prose: list[str]) -> list[str]:
    return ["", "a", *prose[:12], " ".join(prose[:30])]  # the last one is longer than the encoder's positions


@pytest.mark.parametrize("kind", AFTER)
def test_every_module_gives_the_librarys_embeddings(
    kind: str, make_library_model: Callable[..., tuple[Any, Path]], prose: list[str]
) -> None:
    """All modes of pooling and all modules, on texts of mixed lengths in one batch or several, to 1e-6."""
    model, path = make_library_model(kind)
    expected = model.encode(texts(prose), convert_to_tensor=True)
    ours = open_sentence_encoder(str(path))
    torch.testing.assert_close(ours.encode(texts(prose), batch_size=4), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.encode(texts(prose), batch_size=64), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("kind", ["mean", "cls", "weightedmean"])
def test_prompts(
    kind: str,
    include_prompt: bool,
    make_library_model: Callable[..., tuple[Any, Path]],
    prose: list[str],
) -> None:
    """The default prompt is put in front, another one by choice, and pooling may leave it out."""
    prompts = {"query": "query: ", "document": "the document is "}
    model, path = make_library_model(
        kind, prompts=prompts, default_prompt_name="query", include_prompt=include_prompt, max_seq_length=24
    )
    ours = open_sentence_encoder(str(path))
    assert ours.prompts == prompts
    for words in ({}, {"prompt": ""}, {"prompt": "the document is "}):
        expected = model.encode(texts(prose), convert_to_tensor=True, **words)
        torch.testing.assert_close(ours.encode(texts(prose), **words), expected, atol=1e-6, rtol=1e-6)


def test_old_layout(make_library_model: Callable[..., tuple[Any, Path]], prose: list[str]) -> None:
    """Switches instead of a pooling mode, old class names, lower case and a maximum length in a file of its own."""
    model, path = make_library_model("cls,mean")
    switches = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(switches))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": True}))
    entries = json.loads((path / "modules.json").read_text())
    for entry in entries:
        entry["type"] = "sentence_transformers.models." + entry["type"].rpartition(".")[2]
    (path / "modules.json").write_text(json.dumps(entries))
    cased = (path / "tokenizer.json").read_text().replace('"lowercase": true', '"lowercase": false')
    assert '"lowercase": false' in cased
    (path / "tokenizer.json").write_text(cased)
    expected = sentence_transformers.SentenceTransformer(str(path), device="cpu").encode(
        texts(prose), convert_to_tensor=True
    )
    assert not torch.allclose(expected, model.encode(texts(prose), convert_to_tensor=True))
    torch.testing.assert_close(open_sentence_encoder(str(path)).encode(texts(prose)), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kept", [{"embedding_dimension": 16}, {"pooling_mode": None, "pooling_mode_cls_token": True}])
def test_harmless_settings(
    make_library_model: Callable[..., tuple[Any, Path]], prose: list[str], kept: dict[str, Any]
) -> None:
    """Pooling's width, right, wrong or missing, is information only; a setting that is null counts as absent."""
    model, path = make_library_model("cls")
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"} | kept))
    settings = path / "config_sentence_transformers.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_type": None}))
    expected = model.encode(texts(prose), convert_to_tensor=True)
    ours = open_sentence_encoder(str(path))
    assert ours.layout.is_sentence_encoder
    torch.testing.assert_close(ours.encode(texts(prose)), expected, atol=1e-6, rtol=1e-6)


def test_a_bare_encoder_takes_the_mean(bare: Path, prose: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without modules.json, as the library does it; a line says so."""
    expected = sentence_transformers.SentenceTransformer(str(bare), device="cpu").encode(
        texts(prose), convert_to_tensor=True
    )
    torch.testing.assert_close(open_sentence_encoder(str(bare)).encode(texts(prose)), expected, atol=1e-6, rtol=1e-6)
    assert "no modules.json" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dense", "dense-residual", "layer-norm"])
def test_a_saved_encoder_is_the_librarys(
    kind: str, make_library_model: Callable[..., tuple[Any, Path]], tmp_path: Path, prose: list[str]
) -> None:
    """With all modules, prompts and the maximum length; a changed weight of a module is saved, too."""
    _, path = make_library_model(kind, prompts={"query": "query: "}, default_prompt_name="query", max_seq_length=20)
    ours = open_sentence_encoder(str(path))
    with torch.no_grad():
        for parameter in ours.head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    (tmp_path / "saved").mkdir()
    ours.save(tmp_path / "saved")
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert again.prompts["query"] == "query: "
    assert again.max_seq_length == 20
    torch.testing.assert_close(
        again.encode(texts(prose), convert_to_tensor=True), ours.encode(texts(prose)), atol=1e-6, rtol=1e-6
    )


def break_module(path: Path, entry: dict[str, Any]) -> None:
    entries = json.loads((path / "modules.json").read_text())
    (path / "modules.json").write_text(json.dumps([*entries, {"idx": 2, "name": "2", **entry}]))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "modules.json").write_text("{"), "modules.json that cannot be read"),
        (lambda path: (path / "modules.json").write_text("[1]"), "does not list modules"),
        (lambda path: break_module(path, {"path": "2_LSTM", "type": "sentence_transformers.models.LSTM"}), "LSTM"),
        (lambda path: break_module(path, {"path": "../x", "type": "sentence_transformers.models.Dense"}), "outside"),
        (lambda path: (path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "sum"}'), "'sum'"),
        (lambda path: (path / "2_Dense" / "model.safetensors").write_bytes(b"x"), "unreadable weights"),
        (lambda path: (path / "2_Dense" / "model.safetensors").unlink(), "2_Dense|a Dense"),
        (
            lambda path: shutil.move(path / "2_Dense" / "model.safetensors", path / "2_Dense" / "pytorch_model.bin"),
            "pickle",
        ),
        (lambda path: (path / "2_Dense" / "config.json").write_text('{"a": 1}'), "in_features"),
    ],
)
def test_errors(damage: Callable[[Path], Any], words: str, make_library_model: Callable[..., tuple[Any, Path]]) -> None:
    """A damaged or unsupported layout is refused in one line that names what is wrong."""
    _, path = make_library_model("dense")
    damage(path)
    with pytest.raises(DistilkitError, match=words):
        open_sentence_encoder(str(path))


def test_mean_cosine_and_neighbour_overlap() -> None:
    """By hand: four points on a circle; the second embedding swaps two of them."""
    ours = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, 0.1]])
    assert mean_cosine(ours, 3 * ours) == pytest.approx(1)
    assert mean_cosine(ours[:2], -ours[:2]) == pytest.approx(-1)
    assert neighbour_overlap(ours, 2 * ours, 1) == 1
    assert neighbour_overlap(ours, ours[[0, 2, 1, 3]], 1) == 0  # 0-1 and 2-3 are pairs, then 0-2 and 1-3
    assert neighbour_overlap(ours, ours[[0, 1, 3, 2]], 1) == 1
    assert neighbour_overlap(ours, ours[[0, 2, 1, 3]]) == 1  # all three others
