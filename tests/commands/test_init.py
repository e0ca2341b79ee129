import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
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

from distilkit.commands.init import choose, init
from distilkit.encoders import checkpoint
from distilkit.encoders.layer_selection import alternate, spread
from distilkit.errors import DistilkitError
from distilkit.options.init import InitOptions
from distilkit.record import read_biography

FAMILIES = ["bert", "roberta", "distilbert"]


@pytest.mark.parametrize(
    ("teacher", "student", "kept"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (24, 12, [0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23]),
        (6, 3, [0, 2, 5]),
        (4, 2, [0, 3]),
        (5, 5, [0, 1, 2, 3, 4]),
        (12, 1, [0]),
    ],
)
def test_spread_is_the_published_choice(teacher: int, student: int, kept: list[int]) -> None:
    """DistilBERT's own layers for 12 to 6, and the same rule elsewhere."""
    assert spread(teacher, student) == kept


def test_alternate_is_every_other_layer() -> None:
    """Counted from the first."""
    assert alternate(12, 6) == [0, 2, 4, 6, 8, 10]
    assert alternate(12, 4) == [0, 3, 6, 9]


@pytest.mark.parametrize(("strategy", "kept"), [("first", [0, 1, 2]), ("last", [3, 4, 5]), ("spread", [0, 2, 5])])
def test_strategies(strategy: str, kept: list[int]) -> None:
    """Half the layers by default."""
    assert choose(InitOptions(teacher="t", output=Path("o"), strategy=strategy), 6) == kept  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_student_is_the_teacher_less_its_layers(
    make_checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    """Every tensor is the teacher's own, bit by bit; plain from_pretrained finds no key missing or unexpected."""
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
    """Logits equal those of the teacher with the dropped layers turned into identities, which no code of ours made."""
    directory = make_checkpoint(family, 4)
    init(InitOptions(teacher=str(directory), output=tmp_path / "student", layers=2))
    teacher, student = (AutoModelForMaskedLM.from_pretrained(d).eval() for d in (directory, tmp_path / "student"))
    stack = teacher.base_model.transformer.layer if family == "distilbert" else teacher.base_model.encoder.layer
    for dropped in (1, 2):
        stack[dropped].forward = lambda hidden, *args, **kwargs: hidden
    ids = torch.randint(5, 400, (2, 20))

    with torch.no_grad():
        assert torch.equal(teacher(input_ids=ids).logits, student(input_ids=ids).logits)


def test_biography_remembers_the_teacher(teacher: Path, tmp_path: Path) -> None:
    """distilkit.json is there at the end and names teacher and layers."""
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))
    (entry,) = read_biography(tmp_path / "student")

    assert entry.command == "init"
    assert entry.config["teacher"] == str(teacher)
    assert entry.environment["kept_layers"] == "0,3"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 5}, "--layers 5 is more than the teacher's 4"),
        ({"keep": (0, 4)}, "--keep takes ascending layer numbers from 0 to 3"),
        ({"keep": (2, 1)}, "--keep takes ascending layer numbers"),
        ({"keep": (0, 1), "layers": 3}, "--keep names 2 layers"),
    ],
)
def test_impossible_layers_are_refused(teacher: Path, tmp_path: Path, options: dict[str, object], words: str) -> None:
    """In one line, with nothing written."""
    with pytest.raises(DistilkitError, match=words):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "student", **options))  # type: ignore[arg-type]

    assert not (tmp_path / "student").exists()


def test_a_decoder_is_refused_by_name(tmp_path: Path) -> None:
    """GPT-2 is no masked-LM encoder."""
    GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=50)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(DistilkitError, match="gpt2 checkpoint, not a masked-LM encoder"):
        init(InitOptions(teacher=str(tmp_path / "gpt2"), output=tmp_path / "student"))


@pytest.mark.parametrize(
    "auto",
    [AutoModelForSequenceClassification, AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoModel],
)
def test_other_heads_are_kept(make_checkpoint: Callable[..., Path], tmp_path: Path, auto: type) -> None:
    """A classifier stays a classifier, a bare encoder bare, bit by bit."""
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


def test_a_pooler_that_was_never_saved_is_not_made_up(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A bare encoder without a pooler gives one without, not one of random weights."""
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
    """A half-precision, sharded or untied teacher gives a student of the same dtype and ties, bit by bit."""
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
    """Tensors alone are unpickled; anything else in the file is refused unread."""
    teacher = make_checkpoint("bert", 4)
    weights = load_file(teacher / "model.safetensors")
    (teacher / "model.safetensors").unlink()
    torch.save(weights, teacher / "pytorch_model.bin")
    config = {"teacher": str(teacher), "output": tmp_path / "student", "layers": 2}
    with pytest.raises(DistilkitError, match="--allow-pickle"):
        init(InitOptions(**config))  # type: ignore[arg-type]
    init(InitOptions(**config, allow_pickle=True))  # type: ignore[arg-type]
    assert torch.equal(
        load_file(tmp_path / "student/model.safetensors")["bert.encoder.layer.1.output.dense.weight"],
        weights["bert.encoder.layer.3.output.dense.weight"],
    )
    ran = tmp_path / "ran"
    torch.save(weights | {"x": Trap(ran)}, teacher / "pytorch_model.bin")
    with pytest.raises(DistilkitError, match=f"{teacher}.*safetensors"):
        init(InitOptions(**(config | {"output": tmp_path / "other"}), allow_pickle=True))  # type: ignore[arg-type]
    assert not ran.exists()
    assert not (tmp_path / "other").exists()


class Trap:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.place),)


def test_dry_run_shows_the_same_and_writes_nothing(teacher: Path, tmp_path: Path) -> None:
    """The record is that of the real run, proof and size included."""
    options = {"teacher": str(teacher), "output": tmp_path / "student"}
    shown = init(InitOptions(**options, dry_run=True))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    written = init(InitOptions(**options))  # type: ignore[arg-type]

    assert shown.metrics == written.metrics
    assert shown.environment == written.environment


def test_no_verify_skips_the_proof_alone(teacher: Path, tmp_path: Path) -> None:
    """The files are the same."""
    for name, skip in (("a", False), ("b", True)):
        done = init(InitOptions(teacher=str(teacher), output=tmp_path / name, no_verify=skip))
        assert ("max_difference" in done.metrics) is not skip

    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_parameters_by_part_add_up(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """By the formulas of a BERT: V·H + P·H + 2·H embeddings, the layers, the head beside its tied matrix."""
    done = init(InitOptions(teacher=str(make_checkpoint("bert", 4)), output=tmp_path / "s", layers=1)).metrics
    vocabulary, width, positions, inner = 400, 32, 96, 64
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    head = width * width + width + 2 * width + vocabulary

    assert done["teacher/parameters_embeddings"] == (vocabulary + positions + 2) * width
    assert (done["teacher/parameters_layers"], done["student/parameters_layers"]) == (4 * layer, layer)
    assert done["student/parameters_head"] == head
    assert done["student/parameters_other"] == 2 * width
    assert done["student/parameters"] == (vocabulary + positions + 2) * width + layer + head + 2 * width


def test_a_choice_that_cannot_be_exact_names_one_that_is(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, make_checkpoint: Callable[..., Path]
) -> None:
    """ModernBERT's last layers can't stand alone; the offered choice is taken."""
    config = ModernBertConfig(
        vocab_size=400, hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=6, pad_token_id=0
    )
    ModernBertForMaskedLM(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    with pytest.raises(DistilkitError, match="--keep 0,4,5 would be exact") as caught:
        init(InitOptions(teacher=str(tmp_path / "teacher"), output=tmp_path / "student", strategy="last"))
    assert "attn_norm" in str(caught.value)
    assert not (tmp_path / "student").exists()
    done = init(InitOptions(teacher=str(tmp_path / "teacher"), output=tmp_path / "student", keep=(0, 4, 5)))

    assert done.metrics["max_difference"] == 0


def test_a_student_that_does_not_load_as_it_was_is_not_kept(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit that changes on the way to the disk is found, and nothing stays."""
    save = checkpoint.save

    def spoil(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
        save(model, tokenizer, directory)
        weights = load_file(directory / "model.safetensors")
        weights["bert.encoder.layer.1.output.dense.bias"][0] += 1e-3
        save_file(weights, directory / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(checkpoint, "save", spoil)
    with pytest.raises(DistilkitError, match=r"'bert\.encoder\.layer\.1\.output\.dense\.bias' differs"):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))
    assert not (tmp_path / "student").exists()


def test_a_tokenizer_that_is_not_fast_is_handed_on(
    make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    """ESM's, XLM's and others are written in Python alone; only what splits text here needs a fast one."""
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
    """RoBERTa counts positions from the padding id, so a padding id that changes would shift every position."""
    teacher = make_checkpoint("roberta", 4, pad_token_id=128, max_position_embeddings=200)
    text = tmp_path / "text.txt"
    word = tokenizer.convert_ids_to_tokens(128).removeprefix("##")
    text.write_text(f"{word} a{word}\n")  # which keeps the id, but not all those before it
    with pytest.raises(DistilkitError, match=r"with --vocabulary the student computes something else"):
        init(InitOptions(teacher=str(teacher), output=tmp_path / "student", vocabulary=str(text)))
    assert not (tmp_path / "student").exists()
