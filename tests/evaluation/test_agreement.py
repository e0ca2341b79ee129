"""Agreement against models called directly, SciPy, and the held-out agreement of distill."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from distilkit.commands.distill import distill
from distilkit.commands.evaluate import evaluate
from distilkit.commands.init import init
from distilkit.errors import DistilkitError
from distilkit.evaluation import agreement, calibration, slices
from distilkit.evaluation.paired_outputs import compare_at_masked_tokens, trained_length
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.init import InitOptions
from distilkit.record import Record, write_biography

CLASSIFIER = AutoModelForSequenceClassification
NAMES = {0: "ham", 1: "spam", 2: "eggs & bacon"}


def compared(*models: Path, on: Path, **options: object) -> dict[str, float]:
    return evaluate(EvalOptions(models=tuple(map(str, models)), agreement=str(on), **options)).metrics  # type: ignore[arg-type]


def probabilities(directory: Path, texts: list[str], family: str = "bert") -> np.ndarray:
    """Return a classifier's probabilities (N, C), row by row, without padding."""
    model, tokenizer = CLASSIFIER.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
    options = {"truncation": True, "max_length": 96, "return_tensors": "pt"}
    with torch.no_grad():
        logits = [model(**tokenizer(text, **options, return_token_type_ids=family == "bert")).logits for text in texts]
    return special.softmax(torch.cat(logits).double().numpy(), axis=1)


@pytest.fixture(scope="module")
def sentences(prose: list[str]) -> list[str]:
    """About sixty sentences from the whole prose."""
    return prose[:: len(prose) // 60]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, sentences: list[str]) -> Path:
    """A text without labels, one document per line."""
    path = tmp_path_factory.mktemp("unlabelled") / "lines.txt"
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def classifiers(make_checkpoint: Callable[..., Path]) -> tuple[Path, Path]:
    """A student and a teacher with the same three classes, which often differ."""
    student = make_checkpoint("bert", 1, CLASSIFIER, seed=1, id2label=NAMES, initializer_range=0.4)
    return student, make_checkpoint("bert", 3, CLASSIFIER, seed=2, id2label=NAMES, initializer_range=0.4)


def test_classifiers_by_hand(classifiers: tuple[Path, Path], lines: Path, sentences: list[str]) -> None:
    """Agreement, KL (scipy.special.rel_entr), confidences and calibration equal those of unbatched rows."""
    student, teacher = classifiers
    found = compared(student, on=lines, against=str(teacher), batch_size=3)
    ours, theirs = probabilities(student, sentences), probabilities(teacher, sentences)
    same = ours.argmax(1) == theirs.argmax(1)

    assert 0 < same.mean() < 1
    assert found["agreement"] == pytest.approx(same.mean())
    assert found["agreement/texts"] == len(sentences)
    assert found["agreement/kl"] == pytest.approx(special.rel_entr(theirs, ours).sum(1).mean(), rel=1e-3)
    for name, values in (("", ours), ("teacher_", theirs)):
        confidence = values.max(1)
        bins = calibration.reliability(confidence, same.astype(float))
        assert found[f"agreement/{name}confidence"] == pytest.approx(confidence.mean(), rel=1e-4)
        assert found[f"agreement/{name}ece"] == pytest.approx(calibration.expected_error(bins), abs=1e-3)
    digits = np.array([any(character.isdigit() for character in text) for text in sentences])
    assert found["agreement/slices/digits/1+"] == pytest.approx(same[digits].mean())
    assert found["agreement/slices/digits/1+/count"] == digits.sum()
    predicted = [NAMES[label] for label in theirs.argmax(1)]
    for name in set(predicted):
        assert found[f"agreement/slices/answer/{name}"] == pytest.approx(same[np.array(predicted) == name].mean())


def test_slices_come_worst_first(classifiers: tuple[Path, Path], lines: Path) -> None:
    """The upper bound of agreement rises from slice to slice and is above the agreement."""
    student, teacher = classifiers
    found = compared(student, on=lines, against=str(teacher))
    names = [name.removesuffix("/high") for name in found if name.endswith("/high")]

    assert len(names) > 5
    assert [found[f"{name}/high"] for name in names] == sorted(found[f"{name}/high"] for name in names)
    assert all(found[name] <= found[f"{name}/high"] for name in names)


def test_a_model_agrees_with_itself(classifiers: tuple[Path, Path], teacher: Path, lines: Path) -> None:
    """Agreement is 1, KL 0, and the calibration error is 1 minus the confidence."""
    for model in (classifiers[0], teacher):
        found = compared(model, on=lines, against=str(model))
        assert found["agreement"] == 1.0
        assert found["agreement/kl"] == pytest.approx(0, abs=1e-12)
        assert found["agreement/ece"] == pytest.approx(1 - found["agreement/confidence"])


def test_outputs_are_matched_by_name(make_checkpoint: Callable[..., Path], lines: Path) -> None:
    """Classes are matched by name, whatever their order; generic names keep the order."""
    student = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "no", 1: "yes"})
    swapped = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "Yes", 1: "No"})
    silent = make_checkpoint("bert", 1, CLASSIFIER)

    assert compared(student, on=lines, against=str(swapped))["agreement"] == 0.0
    assert compared(student, on=lines, against=str(silent))["agreement"] == 1.0
    signs = make_checkpoint(
        "bert", 1, CLASSIFIER, id2label={0: "-", 1: "+"}
    )  # equal after dropping everything but letters
    assert compared(signs, on=lines, against=str(signs))["agreement"] == 1.0
    other = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "ham", 1: "spam"})
    with pytest.raises(DistilkitError, match=r"ham, spam.*no, yes.*--against"):
        compared(student, on=lines, against=str(other))


def test_numbers_differ_and_correlate(make_checkpoint: Callable[..., Path], lines: Path, sentences: list[str]) -> None:
    """Two regression models have a mean absolute difference and SciPy's correlations, and no agreement."""
    models = [make_checkpoint("bert", layers, CLASSIFIER, num_labels=1, seed=layers) for layers in (1, 2)]
    found = compared(models[0], on=lines, against=str(models[1]), batch_size=7)
    numbers = []
    for directory in models:
        model, tokenizer = CLASSIFIER.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
        with torch.no_grad():
            inputs = [tokenizer(text, truncation=True, max_length=96, return_tensors="pt") for text in sentences]
            numbers.append(np.array([float(model(**encoded).logits) for encoded in inputs]))

    assert found["difference"] == pytest.approx(np.abs(numbers[0] - numbers[1]).mean(), rel=1e-4)
    assert found["difference/pearson"] == pytest.approx(stats.pearsonr(*numbers).statistic, abs=1e-4)
    assert found["difference/spearmanr"] == pytest.approx(stats.spearmanr(*numbers).statistic, abs=1e-3)
    assert found["difference/slices/digits/1+/low"] <= found["difference/slices/digits/1+"]
    assert not any(name.startswith("agreement") for name in found)


def test_masked_tokens_by_hand(tokenizer: PreTrainedTokenizerFast, make_checkpoint: Callable[..., Path]) -> None:
    """Predictions, confidences and KL equal those of full logits at the masked tokens, and of no other tokens."""
    models = [AutoModelForMaskedLM.from_pretrained(make_checkpoint("bert", n, seed=n)).eval() for n in (1, 2)]
    ids = torch.randint(5, 400, (6, 32), generator=torch.Generator().manual_seed(0))
    labels = ids.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.2, -100)
    seen = ids.masked_fill(labels != -100, int(tokenizer.mask_token_id))
    where = [tuple(place) for place in (labels != -100).nonzero().tolist()]
    seen[where[1]], seen[where[2]] = ids[where[1]], (ids[where[2]] + 1) % 400

    class Two:
        per_epoch = 2

        def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
            return {"input_ids": seen[3 * number :][:3], "labels": labels[3 * number :][:3]}

    found = compare_at_masked_tokens(models[0], models[1], tokenizer, Two())  # type: ignore[arg-type]
    with torch.no_grad():
        logits = [model(seen).logits[labels != -100].double().numpy() for model in models]
    ours, theirs = (special.softmax(values, axis=1) for values in logits)

    assert found.confidences
    assert found.student.tolist() == ours.argmax(1).tolist()
    assert found.teacher.tolist() == theirs.argmax(1).tolist()
    np.testing.assert_allclose(found.confidences.kl, special.rel_entr(theirs, ours).sum(1), rtol=1e-4)
    np.testing.assert_allclose(found.confidences.student, ours.max(1), rtol=1e-4)
    shown = found.describe(0)
    row, place = (labels != -100).nonzero()[0].tolist()
    assert shown["token"] == tokenizer.convert_ids_to_tokens(int(ids[row, place]))
    assert shown["teacher"] == tokenizer.convert_ids_to_tokens(int(theirs[0].argmax()))
    assert "»[MASK]«" in shown["text"]
    assert found.slices["shown"] == ["masked", "kept", "replaced", *["masked"] * (len(where) - 3)]
    counts = [int((ids == token).sum()) for token in ids[labels != -100]]
    assert found.slices["frequency"] == [slices.band_name(count, (1, 9, 99, 999), 1) for count in counts]


def test_masked_as_distill_masks(teacher: Path, lines: Path, tmp_path: Path) -> None:
    """On the same held-out text, `agreement` equals distill's heldout_agreement; the teacher is the recorded one."""
    init(InitOptions(teacher=str(teacher), output=tmp_path / "start", layers=2))
    trained = distill(
        DistillOptions(
            student=str(tmp_path / "start"),
            output=tmp_path / "student",
            corpus=str(lines),
            heldout=str(lines),
            steps=2,
            batch_size=4,
            seq_length=32,
        )
    )
    found = compared(tmp_path / "student", on=lines, batch_size=5)

    assert found["agreement"] == pytest.approx(trained.metrics["heldout_agreement"])
    assert found == compared(tmp_path / "student", on=lines, batch_size=32, seed=1, max_length=32) | {
        name: pytest.approx(value, rel=1e-3, abs=1e-4) for name, value in found.items()
    }


def test_a_student_with_fewer_tokens(teacher: Path, lines: Path, tmp_path: Path) -> None:
    """The teacher is pruned to the student's tokens, so a student with all layers agrees everywhere."""
    text = tmp_path / "text.txt"
    text.write_text("the value is an object or a string\n" * 20, encoding="utf-8")
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student", layers=4, vocabulary=str(text)))
    found = compared(tmp_path / "student", on=text, max_length=16)

    assert found["agreement"] == 1.0
    assert found["agreement/kl"] == pytest.approx(0, abs=1e-6)


def test_examples_and_plot(classifiers: tuple[Path, Path], lines: Path, sentences: list[str], tmp_path: Path) -> None:
    """Examples are texts on which the models differ, with both predictions; the worst slice and text come first."""
    student, teacher = classifiers
    files = {"examples": tmp_path / "worst.jsonl", "plot": tmp_path / "reliability.svg"}
    found = compared(student, teacher, on=lines, against=str(teacher), **files)
    shown = [json.loads(line) for line in files["examples"].read_text(encoding="utf-8").splitlines()]
    ranked = [name.removesuffix("/high") for name in found if name.startswith("0/") and name.endswith("/high")]

    assert shown[0]["slice"] == ranked[0].removeprefix("0/agreement/slices/")
    for name in {line["slice"] for line in shown}:
        mine = [line for line in shown if line["slice"] == name]
        missed = found[f"0/agreement/slices/{name}/count"] * (1 - found[f"0/agreement/slices/{name}"])
        assert len(mine) == min(agreement.EXAMPLES_PER_SLICE, round(missed))
        assert [line["kl"] for line in mine] == sorted((line["kl"] for line in mine), reverse=True)
    line = shown[0]
    by_model = {
        model: probabilities(path, [line["text"]])[0] for model, path in (("student", student), ("teacher", teacher))
    }
    assert line["text"] in sentences
    assert line["model"] == str(student)  # the teacher never differs from itself
    for model, shares in by_model.items():
        assert line[model] == NAMES[int(shares.argmax())]
        assert line[f"{model}_confidence"] == pytest.approx(shares.max(), rel=1e-3)
    assert "0/student confidence" in files["plot"].read_text(encoding="utf-8")
    with pytest.raises(DistilkitError, match=r"--examples '.*worst.jsonl'"):
        compared(student, on=lines, against=str(teacher), examples=files["examples"])


def test_task_and_agreement_in_one_run(classifiers: tuple[Path, Path], lines: Path, sentences: list[str]) -> None:
    """Both kinds of metrics are in one record, so that one command can check gates on both."""
    student, teacher = classifiers
    rows = "".join(json.dumps({"t": text, "l": "ham"}) + "\n" for text in sentences[:5])
    (lines.parent / "validation.jsonl").write_text(rows, encoding="utf-8")
    task = {"task": "custom", "data": lines.parent, "text": ("t",), "label": "l", "max_length": 64}
    found = compared(student, on=lines, against=str(teacher), **task)

    assert {"custom/accuracy", "agreement"} <= found.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ()}, "--agreement compares a MODEL with its teacher"),
        ({"models": ("m",), "task": "sst2", "control": ("c",)}, "--control"),
        ({"models": ("m",), "task": "sst3"}, "--task .*did you mean 'sst2'"),
        ({"models": ("m",), "control": ("c",)}, "--control requires --task"),
        ({"models": ("m",), "write_predictions": Path("p")}, "--write-predictions requires --task"),
        ({"models": ("m",), "n_best": 3}, "--n-best requires --task"),
    ],
)
def test_refuses_before_anything_is_compared(
    lines: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """Wrong options are reported before any model runs, and no file is written."""
    with pytest.raises(DistilkitError, match=message):
        evaluate(EvalOptions(agreement=str(lines), examples=tmp_path / "worst.jsonl", **options))
    assert not (tmp_path / "worst.jsonl").exists()


def test_a_folder_without_write_permission_is_refused(
    classifiers: tuple[Path, Path], lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the option and comes before any model runs."""
    monkeypatch.setattr(agreement, "is_writable", lambda _: False)
    with pytest.raises(DistilkitError, match=r"cannot write --plot '.*a.svg'"):
        compared(classifiers[0], on=lines, against=str(classifiers[1]), plot=tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], "--against"),
        ([{"task": "mrpc"}], "mrpc.*--task"),
        ([{"task": "custom", "text": ["a", "b"]}], "custom.*--task"),
    ],
)
def test_no_teacher_and_pairs_of_texts_are_refused(
    classifiers: tuple[Path, Path], lines: Path, history: list[dict[str, object]], message: str, tmp_path: Path
) -> None:
    """The error names the option to use."""
    model = tmp_path / "model"
    model.symlink_to(classifiers[0])
    if history:
        model.unlink()
        model.mkdir()
        for path in classifiers[0].iterdir():
            (model / path.name).symlink_to(path)
        write_biography(model, [Record(command="finetune", config=c, metrics={}, environment={}) for c in history])
    with pytest.raises(DistilkitError, match=message):
        compared(model, on=lines)


def test_models_that_cannot_be_compared_are_refused(
    make_checkpoint: Callable[..., Path], classifiers: tuple[Path, Path], teacher: Path, lines: Path
) -> None:
    """Span models, multi-label models, a teacher with another head, a missing folder, a missing option."""
    spans = make_checkpoint("bert", 1, AutoModelForQuestionAnswering)
    several = make_checkpoint("bert", 1, CLASSIFIER, problem_type="multi_label_classification")
    for model, message in (
        (spans, "question-answering.*--agreement.*--task"),
        (several, "--agreement.*--task"),
        (classifiers[0], "sequence-classification.*masked-lm.*--against"),
    ):
        with pytest.raises(DistilkitError, match=message):
            compared(model, on=lines, against=str(teacher))
    with pytest.raises(DistilkitError, match=r"nowhere' of --plot"):
        compared(teacher, on=lines, against=str(teacher), plot=lines.parent / "nowhere" / "x.svg")
    with pytest.raises(DistilkitError, match="--agreement"):
        evaluate(EvalOptions(models=("m",), task="sst2", examples=Path("x")))


def test_refuses_another_vocabulary(make_checkpoint: Callable[..., Path], teacher: Path, lines: Path) -> None:
    """A student with tokens that the teacher lacks cannot be compared."""
    student = make_checkpoint("bert", 1)
    words, model = AutoTokenizer.from_pretrained(student), AutoModelForMaskedLM.from_pretrained(student)
    words.add_tokens(["distilkit"])
    words.save_pretrained(student)
    model.resize_token_embeddings(len(words))
    model.save_pretrained(student)
    with pytest.raises(DistilkitError, match="have different vocabularies"):
        compared(student, on=lines, against=str(teacher))


def test_length_is_as_trained(tmp_path: Path) -> None:
    """It is --max-length or --seq-length of the last training, else 128."""
    assert trained_length(str(tmp_path)) == 128
    steps = [("distill", {"seq_length": 64}), ("finetune", {"max_length": 256}), ("finetune", {"max_length": None})]
    write_biography(tmp_path, [Record(command=c, config=o, metrics={}, environment={}) for c, o in steps])
    assert trained_length(str(tmp_path)) == 256


def test_a_diverged_model_is_named(make_checkpoint: Callable[..., Path], teacher: Path, lines: Path) -> None:
    """Outputs that are no numbers, although all weights are, are an error that names the model."""
    student = make_checkpoint("bert", 1)
    model = AutoModelForMaskedLM.from_pretrained(student)
    with torch.no_grad():
        model.cls.predictions.transform.LayerNorm.weight.fill_(3e38)  # products of it overflow
    model.save_pretrained(student)
    with pytest.raises(DistilkitError, match=f"'{student}' produces NaN"):
        compared(student, on=lines, against=str(teacher))
