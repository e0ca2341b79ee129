"""init: the student's weights and outputs are its teacher's; the choice of layers; refusals; dry runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from libraries import sentence_transformers
from safetensors.torch import load_file, save_file
from sentence_files import write_modules
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    EsmTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from distilkit.commands.init import choose_layers, init
from distilkit.encoders import checkpoint
from distilkit.encoders.sentence_layout import Layout
from distilkit.errors import DistilkitError
from distilkit.options.init import InitOptions
from distilkit.progress import level
from distilkit.record import read_biography

FAMILIES = ["bert", "roberta", "distilbert"]


@pytest.mark.parametrize(("strategy", "kept"), [("first", [0, 1, 2]), ("last", [3, 4, 5]), ("spread", [0, 2, 5])])
def test_strategies(strategy: str, kept: list[int]) -> None:
    """Each strategy keeps half of the layers by default."""
    assert choose_layers(InitOptions(teacher="t", output=Path("o"), strategy=strategy), 6) == kept  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_student_is_the_teacher_less_its_layers(
    make_checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    """Every tensor equals the teacher's bit by bit. from_pretrained reports no missing or unexpected key."""
    teacher = make_checkpoint(family, 4)
    record = init(InitOptions(teacher=str(teacher), output=tmp_path / "student", keep=(1, 3)))
    model, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    ours, theirs = load_file(tmp_path / "student" / "model.safetensors"), load_file(teacher / "model.safetensors")

    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert record.metrics["max_difference"] == 0.0
    assert record.metrics["student/layers"] == 2
    for name, tensor in ours.items():
        source = name.replace("layer.1.", "layer.3.").replace("layer.0.", "layer.1.")
        assert torch.equal(tensor, theirs[source]), name
    assert record.metrics["student/parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_student_computes_what_the_truncated_teacher_does(
    make_checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    """Logits equal those of the transformers teacher with its dropped layers replaced by identities."""
    directory = make_checkpoint(family, 4)
    init(InitOptions(teacher=str(directory), output=tmp_path / "student", layers=2))
    teacher, student = (AutoModelForMaskedLM.from_pretrained(d).eval() for d in (directory, tmp_path / "student"))
    stack = teacher.base_model.transformer.layer if family == "distilbert" else teacher.base_model.encoder.layer
    for dropped in (1, 2):
        stack[dropped].forward = lambda hidden, *args, **kwargs: hidden
    ids = torch.randint(5, 400, (2, 20))

    with torch.no_grad():
        assert torch.equal(teacher(input_ids=ids).logits, student(input_ids=ids).logits)


def test_the_record_names_teacher_and_layers(teacher: Path, tmp_path: Path) -> None:
    """distilkit.json holds the teacher's name and the kept layers."""
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))
    (entry,) = read_biography(tmp_path / "student")

    assert entry.command == "init"
    assert entry.config["teacher"] == str(teacher)
    assert entry.environment["kept_layers"] == "0,3"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": 5}, "--layers 5 is more than"),
        ({"keep": (0, 4)}, "--keep takes ascending layer numbers from 0 to 3"),
        ({"keep": (2, 1)}, "--keep takes ascending layer numbers"),
        ({"keep": (0, 1), "layers": 3}, "--keep names 2 layers"),
    ],
)
def test_impossible_layers_are_refused(teacher: Path, tmp_path: Path, changes: dict[str, object], words: str) -> None:
    """The error names the flag, and nothing is written."""
    with pytest.raises(DistilkitError, match=words):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "student", **changes))  # type: ignore[arg-type]

    assert not (tmp_path / "student").exists()


def test_a_decoder_is_refused_by_name(tmp_path: Path) -> None:
    """GPT-2 is not a masked-LM encoder."""
    GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=50)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(DistilkitError, match="gpt2 checkpoint"):
        init(InitOptions(teacher=str(tmp_path / "gpt2"), output=tmp_path / "student"))


@pytest.mark.parametrize(
    "auto",
    [AutoModelForSequenceClassification, AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoModel],
)
def test_other_heads_are_kept(make_checkpoint: Callable[..., Path], tmp_path: Path, auto: type) -> None:
    """A classifier's student is a classifier and a bare encoder's a bare encoder, with the teacher's tensors."""
    teacher = make_checkpoint("bert", 4, auto=auto)
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student", keep=(0, 1)))
    model, report = auto.from_pretrained(tmp_path / "student", output_loading_info=True)  # type: ignore[attr-defined]
    theirs = load_file(teacher / "model.safetensors")

    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(
        torch.equal(tensor, theirs[name]) for name, tensor in load_file(tmp_path / "student/model.safetensors").items()
    )
    assert type(model).__name__ == load_architecture(tmp_path / "student") == load_architecture(teacher)


def load_architecture(directory: Path) -> str:
    return str(json.loads((directory / "config.json").read_text())["architectures"][0])


def test_a_pooler_that_was_never_saved_is_not_added(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The student of an encoder without a pooler has none, instead of one with random weights."""
    teacher = make_checkpoint("bert", 4, auto=AutoModel)
    weights = load_file(teacher / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, teacher / "model.safetensors", {"format": "pt"})
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))

    assert not [name for name in load_file(tmp_path / "student/model.safetensors") if "pooler" in name]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shard", ["50GB", "50KB"])
@pytest.mark.parametrize("tied", [True, False])
def test_dtypes_shards_and_ties(
    make_checkpoint: Callable[..., Path], tmp_path: Path, dtype: torch.dtype, shard: str, tied: bool
) -> None:
    """A half-precision, sharded or untied teacher gives a student with the same dtype, ties and tensors."""
    source = AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", 4, tie_word_embeddings=tied), dtype=dtype)
    source.save_pretrained(tmp_path / "teacher", max_shard_size=shard)
    AutoTokenizer.from_pretrained(make_checkpoint("bert", 4)).save_pretrained(tmp_path / "teacher")
    done = init(InitOptions(teacher=str(tmp_path / "teacher"), output=tmp_path / "student", keep=(1, 3)))
    student = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", dtype="auto")
    expected = source.bert.encoder.layer[3].state_dict()

    assert done.metrics["max_difference"] == 0
    assert len(list((tmp_path / "teacher").glob("*.safetensors"))) > (shard == "50KB")
    assert student.dtype == dtype
    assert all(torch.equal(t, expected[name]) for name, t in student.bert.encoder.layer[1].state_dict().items())
    tensors = (student.bert.embeddings.word_embeddings.weight, student.cls.predictions.decoder.weight)
    assert (tensors[0] is tensors[1]) is tied
    assert torch.equal(tensors[1], source.cls.predictions.decoder.weight)
    assert done.metrics["student/bytes"] == sum(
        t.nbytes for t in load_file(tmp_path / "student/model.safetensors").values()
    )


def test_pickles_are_read_only_when_allowed(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Only tensors are unpickled. A file with anything else is refused, and its code does not run."""
    teacher = make_checkpoint("bert", 4)
    weights = load_file(teacher / "model.safetensors")
    (teacher / "model.safetensors").unlink()
    torch.save(weights, teacher / "pytorch_model.bin")
    options = {"teacher": str(teacher), "output": tmp_path / "student", "layers": 2}
    with pytest.raises(DistilkitError, match="--allow-pickle"):
        init(InitOptions(**options))  # type: ignore[arg-type]
    init(InitOptions(**options, allow_pickle=True))  # type: ignore[arg-type]
    assert torch.equal(
        load_file(tmp_path / "student/model.safetensors")["bert.encoder.layer.1.output.dense.weight"],
        weights["bert.encoder.layer.3.output.dense.weight"],
    )
    ran = tmp_path / "ran"
    torch.save(weights | {"x": Trap(ran)}, teacher / "pytorch_model.bin")
    with pytest.raises(DistilkitError, match=f"{teacher}.*safetensors"):
        init(InitOptions(**(options | {"output": tmp_path / "other"}), allow_pickle=True))  # type: ignore[arg-type]
    assert not ran.exists()
    assert not (tmp_path / "other").exists()


class Trap:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.place),)


def test_dry_run_returns_the_same_record_and_writes_nothing(teacher: Path, tmp_path: Path) -> None:
    """The metrics are those of the real run, with the verification and the size of the student."""
    options = {"teacher": str(teacher), "output": tmp_path / "student"}
    shown = init(InitOptions(**options, dry_run=True))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    written = init(InitOptions(**options))  # type: ignore[arg-type]

    assert shown.metrics == written.metrics
    assert shown.environment | {"date": ""} == written.environment | {"date": ""}


def test_random_weights_have_the_students_shape(teacher: Path, tmp_path: Path) -> None:
    """Only constant tensors equal the teacher's; the config sets the standard deviation, the seed the values."""
    paths = {name: tmp_path / name for name in ("kept", "random", "again", "other")}
    init(InitOptions(teacher=str(teacher), output=paths["kept"]))
    for name, seed in (("random", 1), ("again", 1), ("other", 2)):
        done = init(InitOptions(teacher=str(teacher), output=paths[name], random=True, seed=seed))
    kept, random, again, other = (load_file(path / "model.safetensors") for path in paths.values())
    matrices = [name for name, tensor in kept.items() if tensor.dim() == 2]

    assert {name: tensor.shape for name, tensor in random.items()} == {n: t.shape for n, t in kept.items()}
    assert not any(torch.equal(random[name], kept[name]) for name in matrices)
    assert all(torch.equal(random[name], again[name]) for name in random)
    assert not any(torch.equal(random[name], other[name]) for name in matrices)
    inner = next(name for name in matrices if "intermediate" in name)
    assert random[inner].std().item() == pytest.approx(0.02, rel=0.2)  # initializer_range
    assert done.environment["weights"] == "random"
    assert "max_difference" not in done.metrics


def test_no_verify_skips_the_verification_only(teacher: Path, tmp_path: Path) -> None:
    """The weights are the same."""
    for name, skip in (("a", False), ("b", True)):
        done = init(InitOptions(teacher=str(teacher), output=tmp_path / name, no_verify=skip))
        assert ("max_difference" in done.metrics) is not skip

    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_no_verify_copies_modules_that_are_not_supported(
    make_sentence_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """The check would refuse them, as it cannot compare their embeddings."""
    path = shutil.copytree(make_sentence_encoder(2), tmp_path / "teacher")
    entries = json.loads((path / "modules.json").read_text())
    entries[-1]["type"] = "sentence_transformers.models.LSTM"
    (path / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(DistilkitError, match="a module LSTM"):
        init(InitOptions(teacher=str(path), output=tmp_path / "a"))
    init(InitOptions(teacher=str(path), output=tmp_path / "b", no_verify=True))
    assert json.loads((tmp_path / "b/modules.json").read_text()) == entries


def test_a_corpus_without_effect_is_noted(
    teacher: Path, tmp_path: Path, prose: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe may give --corpus for a search that a typed --strategy replaces."""
    (tmp_path / "corpus.txt").write_text("\n".join(prose))
    words = {"teacher": str(teacher), "output": tmp_path / "o", "corpus": str(tmp_path / "corpus.txt"), "dry_run": True}
    for changes, notes in (({"strategy": "first"}, 1), ({"vocabulary": "300"}, 0)):
        options = InitOptions(**words, **changes)  # type: ignore[arg-type]
        assert not list(options.rules())
        with level(quiet=False):
            init(options)
        assert capsys.readouterr().err.count("--corpus has no effect") == notes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_choice_that_cannot_be_exact_names_one_that_is(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype
) -> None:
    """ModernBERT's last layers are not exact without the first one. The suggested choice is, in any precision."""
    config = ModernBertConfig(
        vocab_size=400, hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=6, pad_token_id=0
    )
    ModernBertForMaskedLM(config).to(dtype).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    with pytest.raises(DistilkitError, match="--keep 0,4,5 would be exact") as caught:
        init(InitOptions(teacher=str(tmp_path / "teacher"), output=tmp_path / "student", strategy="last"))
    assert "attn_norm" in str(caught.value)
    assert not (tmp_path / "student").exists()
    done = init(InitOptions(teacher=str(tmp_path / "teacher"), output=tmp_path / "student", keep=(0, 4, 5)))

    assert done.metrics["max_difference"] == 0


def test_a_student_that_reloads_differently_is_deleted(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that changes while it is saved is found, and no directory is left."""
    save = checkpoint.save

    def save_damaged(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
        save(model, tokenizer, directory)
        weights = load_file(directory / "model.safetensors")
        weights["bert.encoder.layer.1.output.dense.bias"][0] += 1e-3
        save_file(weights, directory / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(checkpoint, "save", save_damaged)
    with pytest.raises(DistilkitError, match=r"'bert\.encoder\.layer\.1\.output\.dense\.bias' differs"):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))
    assert not (tmp_path / "student").exists()


def test_a_slow_tokenizer_is_copied(make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    """Tokenizers such as ESM's exist in Python only. A fast one is required only to tokenise text."""
    teacher = make_checkpoint("bert", 4)
    for path in teacher.glob("*token*"):
        path.unlink()
    letters = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWC", "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(letters))
    slow = EsmTokenizer(str(tmp_path / "vocab.txt"))
    slow.save_pretrained(teacher)
    assert not slow.is_fast
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))
    with pytest.raises(DistilkitError, match="no fast tokenizer"):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "other", vocabulary=str(corpus)))

    assert AutoTokenizer.from_pretrained(tmp_path / "student")("LAG")["input_ids"] == slow("LAG")["input_ids"]


def test_a_vocabulary_that_moves_the_padding_is_refused(
    make_checkpoint: Callable[..., Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """RoBERTa counts positions from the padding id, so another padding id would shift all positions."""
    teacher = make_checkpoint("roberta", 4, pad_token_id=128, max_position_embeddings=200)
    text = tmp_path / "text.txt"
    word = tokenizer.convert_ids_to_tokens(128).removeprefix("##")
    text.write_text(f"{word} a{word}\n")  # this token is kept, but not all tokens before it
    with pytest.raises(DistilkitError, match="with --vocabulary"):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "student", vocabulary=str(text)))
    assert not (tmp_path / "student").exists()


def layout_files(directory: Path) -> dict[str, object]:
    """Return what the JSON files of sentence-transformers in a checkpoint hold."""
    names = ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"]
    names += [f"{folder.name}/config.json" for folder in directory.iterdir() if folder.is_dir()]
    return {name: json.loads((directory / name).read_text()) for name in sorted(names) if (directory / name).exists()}


@pytest.mark.parametrize("changed", ["", "architecture", "vocabulary"])
def test_a_sentence_encoder_stays_one(
    make_sentence_encoder: Callable[..., Path], tmp_path: Path, prose: list[str], changed: str
) -> None:
    """All modules are handed on. In sentence-transformers the student's embeddings are the truncated teacher's."""
    teacher = make_sentence_encoder(4)
    (tmp_path / "text.txt").write_text("\n".join(prose))
    words = {"architecture": "distilbert"} if changed == "architecture" else {}
    words |= {"vocabulary": str(tmp_path / "text.txt")} if changed == "vocabulary" else {}
    record = init(InitOptions(teacher=str(teacher), output=tmp_path / "student", keep=(0, 2), **words))  # type: ignore[arg-type]
    assert layout_files(tmp_path / "student") == {
        name: content for name, content in layout_files(teacher).items() if content
    }
    assert record.metrics["max_embedding_difference"] < 1e-5
    library = sentence_transformers().SentenceTransformer(str(teacher), device="cpu")
    for layer in (1, 3):
        library[0].model.encoder.layer[layer].forward = lambda hidden, *args, **kwargs: hidden
    expected = library.encode(prose[:8], convert_to_tensor=True)
    found = (
        sentence_transformers()
        .SentenceTransformer(str(tmp_path / "student"), device="cpu")
        .encode(prose[:8], convert_to_tensor=True)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_lost_module_is_found(
    make_sentence_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student written with other weights of a module fails the verification and does not count as finished."""
    monkeypatch.setattr(Layout, "write", lambda layout, out: write_modules(out, "mean", 24))
    with pytest.raises(DistilkitError, match="sentence embeddings differ"):
        init(InitOptions(teacher=str(make_sentence_encoder(4)), output=tmp_path / "student"))
    assert not (tmp_path / "student/distilkit.json").exists()


def test_other_layouts_of_the_library_are_handed_on(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A cross-encoder has modules.json too, but no embeddings: its files stay, its logits are compared."""
    teacher = make_checkpoint("bert", 4, AutoModelForSequenceClassification)
    sentence_transformers().CrossEncoder(str(teacher), device="cpu").save(
        str(tmp_path / "teacher"), create_model_card=False
    )
    record = init(InitOptions(teacher=str(tmp_path / "teacher"), output=tmp_path / "student"))
    assert "max_embedding_difference" not in record.metrics
    assert layout_files(tmp_path / "student") == layout_files(tmp_path / "teacher")
    scores = sentence_transformers().CrossEncoder(str(tmp_path / "student"), device="cpu").predict([("a", "b")])
    assert scores.shape == (1, 2)
