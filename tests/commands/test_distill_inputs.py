"""distill of every checkpoint: sentence encoders, bare encoders, classifiers and taggers."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from libraries import sentence_transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

from distilkit.commands.distill import distill
from distilkit.commands.distill_inputs import cut_length
from distilkit.commands.init import init
from distilkit.distillation.presets import with_objective
from distilkit.encoders import checkpoint
from distilkit.encoders.sentence import open_sentence_encoder
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.init import InitOptions
from distilkit.record import Record, record, write_biography

Make = Callable[..., Path]


@pytest.fixture
def options(cache: Path, corpus: Path, tmp_path: Path) -> DistillOptions:
    """Options for a short run of a student in tmp_path/student."""
    return DistillOptions(
        student=str(tmp_path / "student"), corpus=str(corpus), output=tmp_path / "out", batch_size=8, steps=12, lr=1e-3
    )


def half(teacher: Path, options: DistillOptions, **words: Any) -> Path:
    """Make the student of half of the layers."""
    init(InitOptions(teacher=str(teacher), output=Path(options.student), **words))
    return Path(options.student)


def curve(done: Record) -> list[dict[str, float]]:
    """Return the held-out lines of a run."""
    lines = [json.loads(line) for line in (Path(done.config["output"]) / "train.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" not in line]


DEFAULTS = {
    "sentence-encoder": ("embedding", "sentences", None),
    "encoder": ("embedding", "sentences", None),
    "masked-lm": ("triple", None, 128),
    "sequence-classification": ("soft-targets", "documents", None),
    "token-classification": ("soft-targets", "documents", None),
    "question-answering": ("hidden", None, 128),
    "multiple-choice": ("hidden", None, 128),
}
CLASSES = {
    "encoder": AutoModel,
    "masked-lm": AutoModelForMaskedLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
    "multiple-choice": AutoModelForMultipleChoice,
}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_default_objective_follows_from_the_checkpoint(
    make_sentence_encoder: Make, make_checkpoint: Make, options: DistillOptions, kind: str, capsys: Any
) -> None:
    """Other options get the objective's defaults. A note names the objective, except for a masked LM."""
    path = make_checkpoint("bert", 2, CLASSES[kind]) if kind in CLASSES else make_sentence_encoder(2)
    found = with_objective(replace(options, student=str(path), lr=None, batch_size=None))
    assert (found.objective, found.split, found.seq_length) == DEFAULTS[kind]
    assert (found.lr, found.batch_size) == ((5e-4, 32) if found.seq_length else (3e-4, 16))
    said = capsys.readouterr().err
    assert (f"--objective {found.objective}" in said) == (kind != "masked-lm")
    assert with_objective(replace(options, student=str(path), objective="hidden")).objective == "hidden"
    assert "--objective" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("sentence-encoder", {"objective": "soft-targets"}, "requires a classification head.*is a sentence encoder"),
        ("masked-lm", {"objective": "soft-targets"}, "requires a classification head"),
        ("sentence-encoder", {"streaming": True}, "--streaming has no effect with --objective embedding"),
        ("sentence-encoder", {"mask_probability": 0.3}, "--mask-probability has no effect"),
        ("sentence-encoder", {"alpha_ce": 1.0}, "--alpha-ce has no effect"),
        ("sequence-classification", {"projection": "drop"}, "--projection has no effect"),
        ("masked-lm", {"split": "lines"}, "--split has no effect with --objective triple"),
        ("masked-lm", {"mask_probability": 0.0, "seq_length": 32}, "no token is masked"),
        ("sentence-encoder", {"objective": "triple"}, "no trained masked-LM head"),
        ("sentence-encoder", {"seq_length": 97}, r"--seq-length 97 .* 96 positions"),
        ("sentence-encoder", {"alpha_embedding": 0.0, "alpha_hidden": 0.0}, "all weights of the loss are 0"),
    ],
)
def test_options_that_do_not_fit_the_checkpoint(
    make_sentence_encoder: Make,
    make_checkpoint: Make,
    options: DistillOptions,
    kind: str,
    words: dict[str, Any],
    message: str,
) -> None:
    """Each is one line that names the option; nothing is written."""
    half(make_checkpoint("bert", 4, CLASSES[kind]) if kind in CLASSES else make_sentence_encoder(4), options)
    with pytest.raises(DistilkitError, match=message):
        distill(replace(options, **words))
    assert not options.output.exists()


def test_a_sentence_encoder_approaches_its_teacher(
    make_sentence_encoder: Make, options: DistillOptions, prose: list[str]
) -> None:
    """Held-out cosine and neighbours rise, and sentence-transformers gives the student's embeddings."""
    half(make_sentence_encoder(4, initializer_range=0.3), options)
    done = distill(replace(options, steps=40, alpha_similarity=0.5, evaluate_every=20))
    first, *_, last = curve(done)
    assert 1 - last["heldout_cosine"] < 0.6 * (1 - first["heldout_cosine"])
    assert last["heldout_neighbours"] >= first["heldout_neighbours"]
    assert done.metrics["heldout_cosine"] == last["heldout_cosine"]
    assert done.config["objective"] == "embedding"
    assert done.environment["head"] == "sentence-encoder"
    assert "objective" not in done.given
    assert not list(options.output.glob("checkpoint-*"))
    library = sentence_transformers().SentenceTransformer(str(options.output), device="cpu")
    ours = open_sentence_encoder(str(options.output)).encode(prose[:6])
    torch.testing.assert_close(ours, library.encode(prose[:6], convert_to_tensor=True), atol=1e-6, rtol=0)
    names = [f"{path}/2_Dense/model.safetensors" for path in (options.student, options.output)]
    before, after = (load_file(name)["linear.weight"] for name in names)
    assert not torch.equal(before, after)


def test_a_resumed_run_is_the_same_to_the_bit(
    make_sentence_encoder: Make, options: DistillOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its modules, too, and with --accumulate."""
    half(make_sentence_encoder(4), options)
    run = replace(options, batch_size=4, accumulate=2, steps=5, checkpoint_every=2)
    distill(replace(run, output=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr("distilkit.commands.distill.draw_run", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            distill(run)
    assert (options.output / "checkpoint-00000004").exists()
    distill(replace(run, resume=True))
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        whole, resumed = (load_file(path / name) for path in (tmp_path / "whole", options.output))
        assert all(torch.equal(resumed[key], tensor) for key, tensor in whole.items()), name


@pytest.mark.parametrize("projection", ["save", "drop"])
def test_a_narrow_student_learns_a_projection(
    make_sentence_encoder: Make, options: DistillOptions, projection: Any, prose: list[str]
) -> None:
    """save: its embeddings have the teacher's width then, through a Dense module. drop: it keeps its own."""
    teacher, student = make_sentence_encoder(4, dense=24), make_sentence_encoder(2, dense=0, pooling="mean")
    done = distill(
        replace(options, student=str(student), teacher=str(teacher), projection=projection, steps=40, evaluate_every=40)
    )
    first, *_, last = curve(done)
    assert last["heldout_cosine"] > first["heldout_cosine"] + 0.1
    library = sentence_transformers().SentenceTransformer(str(options.output), device="cpu")
    assert library.encode(prose[:2]).shape == (2, 24 if projection == "save" else 32)
    assert [type(module).__name__ for module in library][2:] == (
        ["Dense", "Normalize"] if projection == "save" else ["Normalize"]
    )


def test_a_bare_student_gets_the_pooling_of_its_teacher(
    make_sentence_encoder: Make, make_checkpoint: Make, options: DistillOptions, prose: list[str]
) -> None:
    """The result is a sentence encoder with the teacher's pooling. If both are bare encoders, it stays bare."""
    bare = make_checkpoint("bert", 2, AutoModel)
    run = replace(options, student=str(bare), teacher=str(make_sentence_encoder(4, pooling="lasttoken")), steps=2)
    distill(run)
    library = sentence_transformers().SentenceTransformer(str(options.output), device="cpu")
    assert library[1].pooling_mode == "lasttoken"
    assert library.encode(prose[:2]).shape == (2, 24)
    other = make_checkpoint("bert", 4, AutoModel)
    distill(replace(run, teacher=str(other), output=options.output.with_name("bare")))
    assert not (options.output.with_name("bare") / "modules.json").exists()


def other_tokenizer(path: Path, prose: list[str]) -> None:
    """Give a checkpoint a tokenizer that splits the same texts into other tokens."""
    definition = json.loads((path / "tokenizer.json").read_text())
    vocabulary = definition["model"]["vocab"]
    words = [word for word in vocabulary if not word.startswith("[")]
    shuffled = dict(zip(words, [vocabulary[word] for word in reversed(words)], strict=True))
    definition["model"]["vocab"] = {word: shuffled.get(word, number) for word, number in vocabulary.items()}
    (path / "tokenizer.json").write_text(json.dumps(definition))
    assert Tokenizer.from_file(str(path / "tokenizer.json")).encode(prose[0]).ids


def test_a_teacher_with_another_tokenizer(
    make_sentence_encoder: Make, options: DistillOptions, prose: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each model uses its own tokenizer. Hidden states are then not compared, and --alpha-hidden is refused."""
    teacher, student = make_sentence_encoder(4), make_sentence_encoder(2, seed=1)
    other_tokenizer(teacher, prose)
    run = replace(options, student=str(student), teacher=str(teacher), steps=40, evaluate_every=40)
    first, *_, last = curve(distill(run))
    assert last["heldout_cosine"] > first["heldout_cosine"] + 0.1
    assert "hidden states are not compared" in capsys.readouterr().err
    with pytest.raises(DistilkitError, match="--alpha-hidden compares token by token"):
        distill(replace(run, alpha_hidden=1.0, output=options.output.with_name("second")))


def test_a_student_with_a_pruned_vocabulary(make_sentence_encoder: Make, options: DistillOptions, corpus: Path) -> None:
    """Its teacher reads the same tokens, so layers are compared, too."""
    half(make_sentence_encoder(4), options, vocabulary="200", corpus=str(corpus))
    distill(options)
    line = json.loads((options.output / "train.jsonl").read_text().splitlines()[1])
    assert {"embedding", "hidden"} < line.keys()


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification"])
def test_a_classifier_learns_from_plain_text(
    make_checkpoint: Make, options: DistillOptions, kind: str, prose: list[str]
) -> None:
    """Agreement rises and the divergence falls on held-out text. The result is a classifier with the same labels."""
    names = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    half(make_checkpoint("bert", 4, CLASSES[kind], initializer_range=0.5, **names), options)
    done = distill(replace(options, steps=40, evaluate_every=20, temperature=1.0))
    first, *_, last = curve(done)
    assert last["heldout_kl"] < 0.7 * first["heldout_kl"]
    assert last["heldout_agreement"] >= first["heldout_agreement"]
    model = CLASSES[kind].from_pretrained(options.output)
    assert model.config.id2label == names["id2label"]
    assert checkpoint.head_of(str(options.output)) == kind


def test_a_classifier_of_pairs_is_refused(make_checkpoint: Make, options: DistillOptions, tmp_path: Path) -> None:
    """Single texts are not what it was trained on; the line says what to do instead."""
    path = make_checkpoint("bert", 2, AutoModelForSequenceClassification)
    trained = record("finetune", options, {})
    trained.config.update(task="mrpc")
    write_biography(path, [trained])
    with pytest.raises(DistilkitError, match=r"pairs of texts \(mrpc\).*--objective hidden"):
        distill(replace(options, student=str(path), teacher=str(path)))


@pytest.mark.parametrize("objective", ["hidden", "attention", "minilm"])
@pytest.mark.parametrize("kind", ["sentence-encoder", "encoder", "sequence-classification", "question-answering"])
def test_layers_need_no_vocabulary_head(
    make_sentence_encoder: Make,
    make_checkpoint: Make,
    options: DistillOptions,
    objective: Any,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With and without masking, every checkpoint keeps its head and modules. Held-out metrics: the loss terms."""
    half(make_checkpoint("bert", 4, CLASSES[kind]) if kind in CLASSES else make_sentence_encoder(4), options)
    masked = 0.0 if objective == "hidden" else 0.15
    run = replace(options, objective=objective, mask_probability=masked, seq_length=32, evaluate_every=12)
    done = distill(run)
    first, *_, last = curve(done)
    terms = {"hidden": ["hidden"], "attention": ["attention", "hidden"], "minilm": ["relation"]}[objective]
    for term in terms:
        assert last[f"heldout_{term}"] < first[f"heldout_{term}"]
    assert "heldout_loss" not in done.metrics
    expected = "encoder" if kind == "sentence-encoder" else kind
    assert checkpoint.head_of(str(options.output)) == expected
    assert (options.output / "modules.json").exists() == (kind == "sentence-encoder")
    heads = [
        {
            name: tensor
            for name, tensor in load_file(f"{path}/model.safetensors").items()
            if re.match(r"classif|qa", name)
        }
        for path in (options.student, options.output)
    ]
    assert heads[0].keys() == heads[1].keys()
    assert all(torch.equal(heads[1][name], tensor) for name, tensor in heads[0].items())


def test_masked_lm_students_learn_layers_without_masking(teacher: Path, options: DistillOptions) -> None:
    """--mask-probability 0 holds for them, too: the loss terms are then what is held out."""
    half(teacher, options)
    done = distill(replace(options, objective="hidden", mask_probability=0.0, seq_length=32))
    assert "heldout_hidden" in done.metrics


def test_a_plan_for_embeddings(make_sentence_encoder: Make, options: DistillOptions) -> None:
    """--plan measures a few updates and writes nothing."""
    half(make_sentence_encoder(4), options)
    done = distill(replace(options, plan=True))
    assert done.metrics["updates"] == 12
    assert done.metrics["seconds"] > 0
    assert not options.output.exists()


def test_bert_reads_text_with_the_tokenizer_of_the_checkpoint(
    make_sentence_encoder: Make, tokenizer: PreTrainedTokenizerFast, options: DistillOptions
) -> None:
    """The tokens of a run are those of the tokenizer, cut at --seq-length."""
    half(make_sentence_encoder(4), options)
    done = distill(replace(options, seq_length=8, steps=3))
    assert done.metrics["tokens"] <= 3 * 8 * 8


@pytest.mark.parametrize(
    ("given", "usual", "expected"), [(None, 128, 96), (None, None, 96), (None, 40, 40), (8, 40, 8)]
)
def test_texts_are_cut_to_the_models_positions(
    options: DistillOptions, teacher: Path, given: int | None, usual: int | None, expected: int
) -> None:
    """A fine-tuning records its --max-length even if the model has fewer positions (here 96)."""
    model = checkpoint.open_model(str(teacher))
    assert cut_length(replace(options, seq_length=given), model, usual) == expected
