"""Checkpoints and tokenizers that are damaged or say something else than they hold: one error line, nothing touched."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification
from typer.testing import CliRunner

from distilkit.cli import app

Change = Callable[[Path], None]
WEIGHTS, CONFIG, TOKENIZER, SETTINGS = "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"
INDEX = "model.safetensors.index.json"
MODULES, MAXIMUM, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING, DENSE = "1_Pooling/config.json", "2_Dense/config.json"
LAYER = "bert.encoder.layer.0"


def write(file: str, content: str | bytes) -> Change:
    """Replace a file of the checkpoint."""
    data = content.encode() if isinstance(content, str) else content
    return lambda path: (path / file).write_bytes(data) and None


def config_alone(**values: Any) -> Change:
    """Set fields of config.json and remove the weights."""

    def change(path: Path) -> None:
        fields(CONFIG, **values)(path)
        remove(WEIGHTS)(path)

    return change


def cut(file: str) -> Change:
    """Keep half of a file."""
    return lambda path: (
        (path / file).write_bytes((path / file).read_bytes()[: (path / file).stat().st_size // 2]) and None
    )


def remove(file: str) -> Change:
    return lambda path: (path / file).unlink()


def fields(file: str, **values: Any) -> Change:
    """Set fields of a JSON file; None removes one."""

    def change(path: Path) -> None:
        document = json.loads((path / file).read_text()) | values
        kept = {name: value for name, value in document.items() if value is not None}
        (path / file).write_text(json.dumps(kept))

    return change


def tensors(**values: Callable[[torch.Tensor], torch.Tensor] | torch.Tensor | None) -> Change:
    """Change, add or remove tensors; `__` in a name stands for a dot."""

    def change(path: Path) -> None:
        found = load_file(path / WEIGHTS)
        for key, value in values.items():
            name = key.replace("__", ".")
            if value is None:
                del found[name]
            else:
                found[name] = value(found[name]) if callable(value) else value
        save_file(found, path / WEIGHTS, metadata={"format": "pt"})

    return change


def with_value(number: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[1] = number
        return tensor

    return change


def index(content: str) -> Change:
    """Give the weights an index of this content."""

    def change(path: Path) -> None:
        (path / WEIGHTS).rename(path / "model-00001-of-00001.safetensors")
        (path / INDEX).write_text(content)

    return change


def modules(change: Callable[[list[dict[str, Any]]], object]) -> Change:
    """Change the entries of modules.json: Transformer, Pooling, Dense and Normalize."""

    def apply(path: Path) -> None:
        entries = json.loads((path / MODULES).read_text())
        change(entries)
        (path / MODULES).write_text(json.dumps(entries))

    return apply


def add_module(kind: str, config: dict[str, Any], **weights: torch.Tensor) -> Change:
    """Add a module at the end; `__` in the name of a weight stands for a dot."""

    def apply(path: Path) -> None:
        modules(lambda entries: entries.append({"path": f"4_{kind}", "type": f"sentence_transformers.models.{kind}"}))(
            path
        )
        (path / f"4_{kind}").mkdir()
        (path / f"4_{kind}" / "config.json").write_text(json.dumps(config))
        save_file({key.replace("__", "."): t for key, t in weights.items()}, path / f"4_{kind}" / WEIGHTS)

    return apply


def dense(weight: torch.Tensor, **config: Any) -> Change:
    """Give Dense other weights (24, D) and settings."""

    def apply(path: Path) -> None:
        fields(DENSE, **config)(path)
        save_file({"linear.weight": weight, "linear.bias": torch.zeros(24)}, path / "2_Dense" / WEIGHTS)

    return apply


def token_id(token: str, number: int) -> Change:
    def change(path: Path) -> None:
        document = json.loads((path / TOKENIZER).read_text())
        document["model"]["vocab"][token] = number
        (path / TOKENIZER).write_text(json.dumps(document))

    return change


def pickled(path: Path) -> None:
    torch.save(load_file(path / WEIGHTS), path / "pytorch_model.bin")
    (path / WEIGHTS).unlink()


def damaged_pickle(path: Path) -> None:
    pickled(path)
    cut("pytorch_model.bin")(path)


class Case(NamedTuple):
    """One situation: its name, what is changed in which checkpoint, the command's words, and a phrase of the error."""

    name: str
    change: Change
    words: str
    phrase: str
    of: str = "teacher"


INIT, DISTILL = "init M -o O --layers 1", "distill M --objective mlm --corpus TEXT --steps 1 --seq-length 16 -o O"
TUNE, EVAL = "finetune M --task sst2 --data ROWS --steps 1 -o O", "eval M --task sst2 --data ROWS"
STS, RETRIEVAL = "eval M --task sts --data PAIRS", "eval M --task retrieval --data PAIRS --text sentence1,sentence2"
QUICK = "--seq-lengths 8 --runs 2"
AGREE, BENCH = "eval M --agreement TEXT --against M", f"bench M {QUICK}"
SENTENCE = "sentence-encoder"
FAILS = fields(CONFIG, chunk_size_feed_forward=1013)  # which only the forward pass uses
SEARCH = "init M -o O --layers 1 --strategy search --corpus TEXT"
DISTANCES = {f"{LAYER}.attention.self.distance_embedding.weight".replace(".", "__"): torch.zeros(191, 8)}
ADAPTER = {f"{LAYER}.attention.self.query.lora_A.weight".replace(".", "__"): torch.zeros(4, 32)}
QUERY = f"{LAYER}.attention.self.query.weight".replace(".", "__")
NORM = f"{LAYER}.output.LayerNorm.weight".replace(".", "__")
WORDS = "bert__embeddings__word_embeddings__weight"

CASES = [
    # Weights that config.json does not describe
    *(
        Case(f"relative positions: {command.split()[0]}", tensors(**DISTANCES), command, "distance_embedding")
        for command in (INIT, DISTILL, TUNE, BENCH)
    ),
    Case("an adapter's weights", tensors(**ADAPTER), INIT, "lora_A"),
    Case("an adapter beside the model", write("adapter_config.json", "{}"), INIT, "merge its weights"),
    *(
        Case(
            f"more layers than promised: {command.split()[0]}", fields(CONFIG, num_hidden_layers=1), command, "layer.1."
        )
        for command in (INIT, DISTILL, TUNE, BENCH)
    ),
    Case("fewer layers than promised", fields(CONFIG, num_hidden_layers=3), INIT, "missing encoder weights"),
    Case("more tokens than promised", fields(CONFIG, vocab_size=300), INIT, "[400, 32]"),
    Case("more tokens, new head", fields(CONFIG, vocab_size=300), TUNE, "[400, 32]"),
    Case("fewer tokens than promised", fields(CONFIG, vocab_size=500), DISTILL, "[500, 32]"),
    Case("more positions than promised", fields(CONFIG, max_position_embeddings=64), INIT, "position_embeddings"),
    Case("another token type", fields(CONFIG, type_vocab_size=1), INIT, "token_type_embeddings"),
    Case("another width", fields(CONFIG, intermediate_size=48), BENCH, "intermediate"),
    Case("another head size", fields(CONFIG, hidden_size=64), INIT, "config.json"),
    Case(
        "more labels than promised", fields(CONFIG, id2label={"0": "a"}, label2id={"a": 0}), EVAL, "classifier", "tuned"
    ),
    Case("a stranger inside the head", tensors(cls__predictions__extra=torch.ones(3)), INIT, "cls.predictions.extra"),
    # Weights as such
    Case("nan", tensors(**{QUERY: with_value(float("nan"))}), INIT, "query.weight"),
    Case("infinity", tensors(**{NORM: with_value(float("inf"))}), TUNE, "output.LayerNorm.weight"),
    Case(
        "minus infinity in half precision",
        tensors(**{WORDS: lambda t: with_value(-float("inf"))(t.half())}),
        INIT,
        "word_emb",
    ),
    Case("nan in a classifier", tensors(classifier__bias=with_value(float("nan"))), EVAL, "classifier.bias", "tuned"),
    Case("8-bit integers", tensors(**{QUERY: lambda t: t.to(torch.int8)}), INIT, "quantised"),
    Case("8-bit floats", tensors(**{QUERY: lambda t: t.to(torch.float8_e4m3fn)}), TUNE, "quantised"),
    *(
        Case(
            f"quantised: {method}",
            fields(CONFIG, quantization_config={"quant_method": method, "bits": 4}),
            words,
            "quantised",
        )
        for method, words in (("bitsandbytes", INIT), ("gptq", TUNE), ("torchao", BENCH), ("unheard-of", EVAL))
    ),
    Case("cut weights", cut(WEIGHTS), INIT, "cannot be read"),
    Case("empty weights", write(WEIGHTS, b""), TUNE, "cannot be read"),
    Case("weights of text", write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), INIT, "cannot be read"),
    Case("no weights", remove(WEIGHTS), INIT, "no weights"),
    Case("a pickle", pickled, INIT, "--allow-pickle"),
    Case("a pickle elsewhere", pickled, TUNE, "--allow-pickle"),
    Case(
        "a damaged pickle",
        damaged_pickle,
        f"{INIT} --allow-pickle",
        "weights of",
    ),
    # The index of several weight files
    *(
        Case(f"index {content}", index(content), INIT, INDEX)
        for content in (
            "",
            "[1]",
            "null",
            "{}",
            '{"weight_map": null}',
            '{"metadata": {}, "weight_map": ["x"]}',
            '{"weight_map": {}}',
            '{"weight_map": {"a": 7, "b": "c"}}',
            '{"weight_map": {"a": "/etc/passwd"}}',
            '{"weight_map": {"a": "../x.safetensors"}}',
            '{"weight_map": {"a": ""}}',
            '{"weight_map": {"a": "b.safetensors"}}',
            '{"weight_map": {"a": "' + "9" * 4000 + '"}}',
        )
    ),
    # config.json
    *(
        Case(f"config {content[:12]!r}", write(CONFIG, content), INIT, "config")
        for content in (
            b"",
            b"null",
            b"[]",
            b"{",
            b"\xff\xfe",
            b"[" * 5000,
            b'{"model_type": "unheard-of"}',
            b'{"model_type": 5}',
        )
    ),
    *(
        Case(f"config {name}", fields(CONFIG, **{name: value}), INIT, "config.json")
        for name, value in (
            ("hidden_size", "x"),
            ("num_attention_heads", 0),
            ("num_attention_heads", 5),
            ("architectures", 5),
            ("architectures", [7]),
            ("hidden_act", "unheard-of"),
            ("vocab_size", -4),
            ("num_hidden_layers", 1.5),
            ("chunk_size_feed_forward", []),
            ("id2label", [1]),
            ("layer_norm_eps", "x"),
        )
    ),
    *(
        Case(f"{name} {value}: {words}", config_alone(**{name: value}), f"{words} {QUICK}", phrase)
        for words in ("bench --plan M", "bench M --random-weights")
        for name, value, phrase in (
            ("hidden_dropout_prob", 3, "cannot use (dropout probability"),
            ("pad_token_id", 5000, "cannot use (Padding_idx"),
            ("num_attention_heads", 5, "cannot use (The hidden size (32)"),
        )
    ),
    Case("only padding", config_alone(vocab_size=1), f"bench M --random-weights {QUICK}", "no token beside padding"),
    *(
        Case(f"a forward pass that fails: {command.split()[0]}", FAILS, command, "cannot be run (The dimension", of)
        for command, of in (
            *((command, "teacher") for command in (INIT, DISTILL, BENCH, SEARCH, AGREE)),
            (EVAL, "tuned"),
            ("predict M --data FILE --text sentence -o TABLE", "tuned"),
        )
    ),
    # Tokenizers
    *(
        Case(f"tokenizer {content[:9]!r}", write(TOKENIZER, content), command, "tokenizer")
        for content, command in (
            (b"", INIT),
            (b"null", DISTILL),
            (b"[]", TUNE),
            (b"{}", TUNE),
            (b"\xff", INIT),
            (b"[" * 5000, INIT),
        )
    ),
    *(
        Case(f"settings {content[:9]!r}", write(SETTINGS, content), INIT, "tokenizer")
        for content in (b"", b"null", b"[1]", b"\xff", b"7")
    ),
    Case("a cut tokenizer", cut(TOKENIZER), TUNE, "tokenizer"),
    *(
        Case(
            f"model_max_length {number}: {words}", fields(SETTINGS, model_max_length=number), words, "model_max_length"
        )
        for number in (-3, 0, 2)
        for words in ("bench M --data TEXT --rows 2 --devices cpu", "export M -o O")
    ),
    Case("odd special tokens", fields(SETTINGS, mask_token=[1]), INIT, "tokenizer"),
    *(
        Case(f"an id beyond the embeddings: {command.split()[0]}", token_id("the", 5000), command, "largest id is 5000")
        for command in (INIT, DISTILL, TUNE, SEARCH, f"{INIT} --vocabulary TEXT", AGREE)
    ),
    Case("an id beyond the embeddings: eval", token_id("the", 400), EVAL, "largest id is 400", "tuned"),
    Case("no PAD: finetune", fields(SETTINGS, pad_token=None), TUNE, "no PAD token"),
    Case("no PAD: eval", fields(SETTINGS, pad_token=None), EVAL, "no PAD token", "tuned"),
    Case(
        "no PAD: bench", fields(SETTINGS, pad_token=None), "bench M --data TEXT --rows 2 --devices cpu", "no PAD token"
    ),
    Case("no MASK: distill", fields(SETTINGS, mask_token=None), DISTILL, "no MASK token"),
    Case("no MASK: search", fields(SETTINGS, mask_token=None), SEARCH, "no MASK token"),
    Case("no MASK: agreement", fields(SETTINGS, mask_token=None), AGREE, "no MASK token"),
    Case("no CLS: distill", fields(SETTINGS, cls_token=None), DISTILL, "no CLS token"),
    Case("no SEP: search", fields(SETTINGS, sep_token=None), SEARCH, "no SEP token"),
    # Heads
    Case(
        "a bare encoder has no masked-LM head",
        fields(CONFIG, architectures=["BertForMaskedLM"]),
        DISTILL,
        "--new-head",
        "bare",
    ),
    Case("a masked LM is no classifier", lambda _: None, EVAL, "no trained sequence-classification head"),
    # The modules of a sentence encoder
    *(
        Case(f"no settings of Pooling: {words}", remove(POOLING), words, "lacks the settings of its Pooling", SENTENCE)
        for words in (STS, INIT, f"{INIT} --no-verify", f"{INIT} --dry-run", "export M -o O")
    ),
    Case(
        "no folder of Pooling", lambda path: shutil.rmtree(path / "1_Pooling"), STS, "1_Pooling/config.json", SENTENCE
    ),
    Case("Pooling of no mode", fields(POOLING, pooling_mode=[]), STS, "pooling mode 'none'", SENTENCE),
    *(
        Case(f"{file} is {content}", write(file, content), STS, f"{file} that is not a JSON {kind}", SENTENCE)
        for file, kind in (
            (MODULES, "list"),
            *((name, "object") for name in (POOLING, DENSE, "3_Normalize/config.json", MAXIMUM, PROMPTS)),
        )
        for content in ("null", '"x"', "7", '{"a": 1}' if kind == "list" else "[1]")
    ),
    *(
        Case(f"path {path!r}", modules(lambda entries, path=path: entries[1].update(path=path)), STS, phrase, SENTENCE)
        for path, phrase in (
            (None, "does not list modules"),
            ("1_Pooling\0x", "correct its path"),
            ("2_Dense", "folder of another one"),
            (".", "folder of another one"),
        )
    ),
    *(
        Case(f"modules: {phrase}", modules(change), STS, phrase, SENTENCE)
        for change, phrase in (
            (lambda entries: entries[0].update(type="sentence_transformers.models.StaticEmbedding"), "StaticEmbedding"),
            (lambda entries: entries[1].update(type=5), "does not list modules"),
            (lambda entries: entries.insert(1, entries.pop(2)), "Transformer, Dense, Pooling, Normalize"),
            (lambda entries: entries.append(entries[1] | {"path": "4"}), "Dense, Normalize, Pooling"),
        )
    ),
    *(
        Case(
            f"Dense of another width: {words}",
            dense(torch.ones(24, 16), in_features=16),
            words,
            "32 and 16x24",
            SENTENCE,
        )
        for words in (STS, INIT, f"{INIT} --random", "export M -o O")
    ),
    Case("Dense of integers", dense(torch.ones(24, 32, dtype=torch.int64)), STS, "weights of torch.int64", SENTENCE),
    *(
        Case(f"Dense activation {name}", fields(DENSE, activation_function=name), STS, phrase, SENTENCE)
        for name, phrase in (
            ("torch.nn.Softmax2d", "do not fit each other (Softmax2d"),
            ("torch.nn.Module", "do not fit each other (Module"),
            ("torch.nn.ParameterList", "do not fit each other (ParameterList"),
            (5, "a Dense that cannot be read"),
        )
    ),
    Case(
        "LayerNorm of another width",
        add_module("LayerNorm", {"dimension": 16}, norm__weight=torch.ones(16), norm__bias=torch.zeros(16)),
        STS,
        "do not fit each other",
        SENTENCE,
    ),
    *(
        Case(f"max_seq_length {number!r}", fields(MAXIMUM, max_seq_length=number), STS, phrase, SENTENCE)
        for number, phrase in (
            *((wrong, "'max_seq_length' is not a positive integer") for wrong in ("x", -5, 0, 3.5, True, [48])),
            (2, "cuts texts at 2 tokens"),
        )
    ),
    Case(
        "a default prompt of all tokens",
        fields(PROMPTS, prompts={"query": "of " * 46}, default_prompt_name="query"),
        STS,
        "default prompt take 48",
        SENTENCE,
    ),
    *(
        Case(f"{key} {value!r}: {words[-9:]}", fields(PROMPTS, **{key: value}), words, f"'{key}' is not", SENTENCE)
        for key, value, words in (
            ("prompts", ["a"], STS),
            ("prompts", "x", STS),
            ("prompts", {"query": 5}, RETRIEVAL),
            ("default_prompt_name", ["query"], STS),
            ("default_prompt_name", "unheard-of", STS),
            ("model_type", 5, STS),
        )
    ),
]


@pytest.fixture(scope="module")
def originals(
    make_checkpoint: Callable[..., Path],
    make_sentence_encoder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    corpus: Path,
) -> dict[str, Path]:
    """Return sound checkpoints of 2 layers, a text and rows; every case copies a checkpoint and changes the copy."""
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    rows = tmp_path_factory.mktemp("rows")
    lines = [json.dumps({"sentence": f"a film {number}", "label": number % 2}) for number in range(8)]
    for split in ("train", "validation"):
        (rows / f"{split}.jsonl").write_text("\n".join(lines))
    pairs = [{"sentence1": f"a film {number}", "sentence2": "the end", "score": number} for number in range(4)]
    (rows / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return {
        "PAIRS": rows / "pairs.jsonl",
        SENTENCE: make_sentence_encoder(2),
        "teacher": make_checkpoint("bert", 2),
        "bare": make_checkpoint("bert", 2, auto=AutoModel),
        "tuned": make_checkpoint("bert", 2, auto=AutoModelForSequenceClassification, **labels),
        "TEXT": corpus,
        "ROWS": rows,
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Return the names and digests of all files below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest() for path in files}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_line_and_nothing_left(case: Case, originals: dict[str, Path], tmp_path: Path) -> None:
    """The command ends with exit code 1 and one error line; inputs stay as they are, and there is no output."""
    model = tmp_path / "model"
    shutil.copytree(originals[case.of], model)
    case.change(model)
    before = contents(tmp_path)
    outputs = {"O": tmp_path / "out", "TABLE": tmp_path / "out.csv"}
    places = {"M": model, **outputs, "FILE": originals["ROWS"] / "validation.jsonl", **originals}
    result = CliRunner().invoke(app, [str(places.get(word, word)) for word in case.words.split()])
    errors = [line for line in result.stderr.splitlines() if line.startswith("distilkit: error: ")]

    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, len(errors)) == (1, 1), result.output
    assert case.phrase in errors[0]
    assert "Traceback" not in result.output
    assert contents(tmp_path) == before
    assert not (tmp_path / "out").exists()
