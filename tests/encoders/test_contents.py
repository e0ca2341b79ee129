"""What a checkpoint is, is read from its weights, whatever its config names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from distilkit.commands.init import init
from distilkit.encoders import checkpoint
from distilkit.options.init import InitOptions

SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 96,
}


def edit_config(directory: Path, *removed: str, **values: object) -> None:
    document = json.loads((directory / "config.json").read_text()) | values
    (directory / "config.json").write_text(
        json.dumps({key: value for key, value in document.items() if key not in removed})
    )


def edit_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = directory / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


@pytest.fixture
def build(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Callable[..., Path]:
    """Return a function that writes a tiny random checkpoint of a model class by its name."""

    def write(name: str, **changes: object) -> Path:
        kind = getattr(transformers, name)
        known = kind.config_class().to_dict()
        torch.manual_seed(0)
        model = kind(kind.config_class(**{key: value for key, value in SIZES.items() if key in known} | changes))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return write


def halve(directory: Path) -> tuple[Path, str]:
    """Return the student of one layer and the head in init's record."""
    out = directory.parent / f"{directory.name}-student"
    done = init(InitOptions(teacher=str(directory), output=out, layers=1))
    assert done.metrics["max_difference"] == 0
    return out, done.environment["head"]


def architectures(directory: Path) -> list[str]:
    names: list[str] = json.loads((directory / "config.json").read_text())["architectures"]
    return names


def test_a_head_that_only_the_config_names_is_none(
    build: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As published sentence encoders are: config.json says MPNetForMaskedLM, and the weights are a bare encoder's."""
    teacher = build("MPNetModel")
    edit_config(teacher, architectures=["MPNetForMaskedLM"])
    student, head = halve(teacher)
    said = [line for line in capsys.readouterr().err.splitlines() if "MPNetForMaskedLM" in line]

    assert head == "encoder"
    assert architectures(student) == ["MPNetModel"]
    assert len(said) == 1
    assert "bare encoder" in said[0]
    ids = torch.tensor([[2, 10, 20, 3]])
    mine, theirs = (AutoModel.from_pretrained(place)(ids).pooler_output for place in (student, teacher))
    assert mine.shape == theirs.shape


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("BertForSequenceClassification", "sequence-classification"),
        ("DistilBertForSequenceClassification", "sequence-classification"),
        ("RobertaForTokenClassification", "token-classification"),
        ("BertForQuestionAnswering", "question-answering"),
        ("BertForMultipleChoice", "multiple-choice"),
        ("ElectraForMaskedLM", "masked-lm"),
        ("BertModel", "encoder"),
    ],
)
def test_a_checkpoint_without_architectures_is_what_it_holds(build: Callable[..., Path], name: str, head: str) -> None:
    """Old scripts saved no `architectures`. Multiple-choice and regression heads have the same weights, so the
    multiple-choice model keeps them.
    """
    directory = build(name)
    edit_config(directory, *([] if head == "multiple-choice" else ["architectures"]))

    assert checkpoint.head_of(str(directory)) == head
    assert type(checkpoint.open_as_saved(str(directory))).__name__ == name


def test_a_discriminator_is_a_bare_encoder(build: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """ELECTRA's discriminator has no masked-LM head; what is left out is named."""
    student, head = halve(build("ElectraForPreTraining", embedding_size=16))

    assert (head, architectures(student)) == ("encoder", ["ElectraModel"])
    assert "discriminator_predictions" in capsys.readouterr().err


def test_the_published_layout_of_deberta_is_a_masked_lm(build: Callable[..., Path]) -> None:
    """Its head is under lm_predictions, and its config has neither `architectures` nor `legacy`."""
    teacher = build("DebertaV2ForMaskedLM", legacy=False, relative_attention=True, pos_att_type=["p2c", "c2p"])
    expected = load_file(teacher / "model.safetensors")["lm_predictions.lm_head.dense.weight"]
    edit_config(teacher, "architectures", "legacy")
    student, head = halve(teacher)

    assert head == "masked-lm"
    assert torch.equal(load_file(student / "model.safetensors")["lm_predictions.lm_head.dense.weight"], expected)


def test_next_sentence_and_causal_heads_are_left_out_by_name(
    build: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A next-sentence head and a causal head are not masked-LM heads, so only the encoder is read."""
    assert halve(build("BertForNextSentencePrediction"))[1] == "encoder"
    assert "not used: cls.seq_relationship (2 tensors)" in capsys.readouterr().err
    assert halve(build("BertLMHeadModel", is_decoder=True))[1] == "encoder"
    assert "not used: cls.predictions" in capsys.readouterr().err


def test_pretraining_checkpoints_with_old_names_and_copies_still_work(
    build: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As the first published BERTs: gamma and beta, position ids, a second head, a copy of the tied embeddings."""
    teacher = build("BertForPreTraining")

    def old(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }
        renamed["bert.embeddings.position_ids"] = torch.arange(96).unsqueeze(0)
        renamed["cls.predictions.decoder.weight"] = renamed["bert.embeddings.word_embeddings.weight"].clone()
        return renamed

    before = load_file(teacher / "model.safetensors")
    edit_tensors(teacher, old)
    student, head = halve(teacher)
    after = load_file(student / "model.safetensors")

    assert head == "masked-lm"
    assert "not used: bert.pooler (2 tensors), cls.seq_relationship (2 tensors)" in capsys.readouterr().err
    name = "bert.encoder.layer.0.output.LayerNorm.weight"
    assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("claimed", ["float16", "bfloat16", None])
def test_init_keeps_the_precision_of_the_file(build: Callable[..., Path], claimed: str | None) -> None:
    """A file in fp32 stays so under any config, bit by bit; the student's config then says float32."""
    teacher = build("BertForMaskedLM")
    edit_tensors(teacher, lambda tensors: {name: tensor * 1.0001 for name, tensor in tensors.items()})
    edit_config(teacher, "dtype", **({"torch_dtype": claimed} if claimed else {}))
    student, _ = halve(teacher)
    ours, theirs = (load_file(place / "model.safetensors") for place in (student, teacher))

    assert ours
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert json.loads((student / "config.json").read_text())["dtype"] == "float32"


def test_init_keeps_each_tensors_own_precision(build: Callable[..., Path]) -> None:
    """Matrices in bf16 beside norms in fp32 stay as they are, and plain from_pretrained reads them without rounding."""
    teacher = build("BertForMaskedLM")

    def mix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor if "LayerNorm" in name else tensor.bfloat16() for name, tensor in tensors.items()}

    edit_tensors(teacher, mix)
    edit_config(teacher, "dtype")
    student, _ = halve(teacher)
    ours, theirs = (load_file(place / "model.safetensors") for place in (student, teacher))

    assert {tensor.dtype for tensor in ours.values()} == {torch.float32, torch.bfloat16}
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name])
    model = AutoModel.from_pretrained(student)
    assert torch.equal(
        model.encoder.layer[0].output.LayerNorm.weight, ours["bert.encoder.layer.0.output.LayerNorm.weight"]
    )


def test_references_to_code_are_not_handed_on(build: Callable[..., Path]) -> None:
    """auto_map names Python files of the teacher, which a student does not have."""
    teacher = build("BertForMaskedLM")
    edit_config(teacher, auto_map={"AutoModel": "modeling_x.X"}, transformers_weights="other.safetensors")
    settings = json.loads((teacher / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["tokenization_x.X", None]}
    (teacher / "tokenizer_config.json").write_text(json.dumps(settings))
    student, _ = halve(teacher)

    for file in ("config.json", "tokenizer_config.json"):
        text = (student / file).read_text()
        assert "auto_map" not in text
        assert "transformers_weights" not in text
    assert AutoTokenizer.from_pretrained(student)("a text")["input_ids"]


def test_a_classifier_of_other_labels_gets_a_new_head_or_a_reordered_one(
    build: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs follow their label names: `outputs` has the old number of each new output, None starts anew."""
    directory = build("RobertaForSequenceClassification", num_labels=3, max_position_embeddings=98)
    plain = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    ids = torch.tensor([[2, 10, 20, 3]])
    moved = checkpoint.open_model(str(directory), "sequence-classification", new_head=True, outputs=[2, 0, 1])
    new = checkpoint.open_model(str(directory), "sequence-classification", new_head=True, outputs=None)

    assert torch.allclose(moved(ids).logits, plain(ids).logits[:, [2, 0, 1]])
    assert torch.equal(new.roberta.embeddings.word_embeddings.weight, plain.roberta.embeddings.word_embeddings.weight)
    for part in ("dense", "out_proj"):
        assert not torch.equal(getattr(new.classifier, part).weight, getattr(plain.classifier, part).weight)
    said = capsys.readouterr().err
    assert "LABEL_2, LABEL_0, LABEL_1" in said
    assert "replaced by a new one" in said
