"""Losses on whole texts against formulas written out here; batches and micro-batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from padded_text import padded_batch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from distilkit.distillation import losses
from distilkit.distillation.heldout import WholeTextEvaluator
from distilkit.distillation.whole_text_objective import EmbeddingDistillation, OutputDistillation
from distilkit.encoders.layers import extract
from distilkit.encoders.sentence import SentenceEncoder, open_sentence_encoder

WEIGHTS = {"embedding": 2.0, "similarity": 3.0, "hidden": 0.5}
Encoders = tuple[SentenceEncoder, SentenceEncoder]


@pytest.fixture
def encoders(make_sentence_encoder: Callable[..., Path]) -> Encoders:
    """A student of layers 0 and 3 and its teacher, with Pooling by CLS and a Dense module; neither has dropout."""
    path = make_sentence_encoder(4)
    teacher, student = open_sentence_encoder(str(path)), open_sentence_encoder(str(path))
    student.model = extract(student.model, [0, 3])
    return student, teacher


def text_batch(number: int = 0) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in padded_batch(number).items() if name != "labels"}


def objective_of(encoders: Encoders, weights: dict[str, float], **options: object) -> EmbeddingDistillation:
    return EmbeddingDistillation(*encoders, weights, layer_map=[1, 3], **options).eval()  # type: ignore[arg-type,return-value]


def test_embedding_losses_by_hand() -> None:
    """Two texts at right angles for the student and at 60 degrees for the teacher, whatever their lengths."""
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    teacher = torch.tensor([[5.0, 0.0], [1.0, 3.0**0.5]])
    assert losses.embedding(student, teacher).item() == pytest.approx((0 + 2 - 3**0.5) / 2, abs=1e-6)
    assert losses.similarity(student, teacher).item() == pytest.approx(0.25, abs=1e-6)
    assert losses.similarity(student, F.pad(teacher, (0, 3))).item() == pytest.approx(0.25, abs=1e-6)
    assert losses.similarity(student[:1], teacher[:1]).item() == 0


def test_the_loss_is_the_weighted_sum_of_its_terms(encoders: Encoders) -> None:
    """Embeddings are those of the two encoders; hidden states are compared at tokens that are not padding."""
    student, teacher = encoders
    batch = text_batch()
    with torch.no_grad():
        mine, other = student(batch), teacher(batch)
        ours, theirs = (
            encoder.model(**batch, output_hidden_states=True).hidden_states for encoder in (student, teacher)
        )
    mask = batch["attention_mask"].bool()
    hidden = torch.stack([F.mse_loss(ours[i][mask], theirs[j][mask]) for i, j in ((1, 2), (2, 4))]).mean()
    expected = {
        "embedding": (mine - other).pow(2).sum(-1).mean(),  # both are normalised already
        "similarity": ((mine @ mine.T - other @ other.T) ** 2).sum() / (len(mine) * (len(mine) - 1)),
        "hidden": hidden,
    }
    expected["loss"] = sum(WEIGHTS[term] * value for term, value in expected.items())  # type: ignore[assignment]
    found = objective_of(encoders, WEIGHTS)(batch)
    assert found.keys() == expected.keys()
    for term, value in expected.items():
        torch.testing.assert_close(found[term].detach(), value, rtol=1e-5, atol=1e-6)


def test_micro_batches_add_up(encoders: Encoders) -> None:
    """Losses and gradients of two micro-batches with their shares are those of one batch with all texts."""
    terms = {"embedding": 1.0, "hidden": 1.0}
    objective = objective_of(encoders, terms)
    parts = [text_batch(0), text_batch(1)]
    width = max(part["input_ids"].shape[1] for part in parts)
    whole = {
        name: torch.cat([F.pad(part[name], (0, width - part[name].shape[1])) for part in parts]) for name in parts[0]
    }
    counts = [objective.token_counts(part) for part in (*parts, whole)]
    expected = objective(whole)
    expected["loss"].backward()
    gradients = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
    objective.zero_grad()
    found = [
        objective(part, {term: count[term] / counts[2][term] for term in terms})
        for part, count in zip(parts, counts, strict=False)
    ]
    sum(terms["loss"] for terms in found).backward()  # type: ignore[union-attr]
    for term in ("loss", *terms):
        torch.testing.assert_close(found[0][term] + found[1][term], expected[term])
    for after, before in zip((p.grad for p in objective.parameters() if p.grad is not None), gradients, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-6)


def test_only_the_student_and_its_modules_learn(encoders: Encoders) -> None:
    """The teacher and its modules are frozen and in no checkpoint of the run."""
    objective = objective_of(encoders, WEIGHTS)
    objective(text_batch())["loss"].backward()
    teacher = encoders[1]
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    names = {name.partition(".")[0] for name, _ in objective.named_parameters()}
    assert names == {"student", "head"}
    assert all(parameter.grad is not None for parameter in objective.head.parameters())


@pytest.mark.parametrize("width", [16, 64])
def test_another_width_is_compared_after_a_projection(
    make_sentence_encoder: Callable[..., Path], encoders: Encoders, width: int
) -> None:
    """The projection learns; the term similarity and the neighbours need none."""
    other = open_sentence_encoder(str(make_sentence_encoder(2, dense=width)))
    objective = objective_of((other, encoders[1]), {"embedding": 1.0, "similarity": 1.0})
    found = objective(text_batch())
    mine = objective.projection(other(text_batch()))
    torch.testing.assert_close(found["embedding"], losses.embedding(mine, encoders[1](text_batch())).detach())
    found["loss"].backward()
    assert objective.projection.weight.grad.abs().sum() > 0


def test_a_teacher_may_read_its_own_tokens(encoders: Encoders) -> None:
    """With a prefix, the teacher's inputs are columns of their own, of another length."""
    student, teacher = encoders
    ours, theirs = text_batch(0), {name: tensor.flip(0)[:, :9] for name, tensor in text_batch(1).items()}
    batch = ours | {f"teacher_{name}": tensor for name, tensor in theirs.items()}
    found = objective_of(encoders, {"embedding": 1.0}, prefix="teacher_")(batch)
    torch.testing.assert_close(found["embedding"], losses.embedding(student(ours), teacher(theirs)).detach())


class TwoBatches:
    """Two batches of padded text."""

    rows = range(6)
    per_epoch = 2

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return text_batch(number)


def test_heldout_cosine_and_neighbours(encoders: Encoders) -> None:
    """The means over all held-out texts; the objective stays in training mode and keeps its student."""
    student, teacher = encoders
    objective = objective_of(encoders, WEIGHTS)
    evaluator = WholeTextEvaluator(TwoBatches(), objective)  # type: ignore[arg-type]
    objective.train()
    found = evaluator.evaluate(student.model)
    assert objective.training
    assert objective.student is student.model
    with torch.no_grad():
        mine, other = (torch.cat([encoder.eval()(text_batch(number)) for number in (0, 1)]) for encoder in encoders)
    assert found["heldout_cosine"] == pytest.approx(F.cosine_similarity(mine, other).mean().item(), rel=1e-5)
    assert found["heldout_neighbours"] == 1  # of so few texts, all others are neighbours
    assert evaluator.evaluate(teacher.model)["heldout_cosine"] == pytest.approx(1)


def classifiers(make: Callable[..., Path], auto: type = AutoModelForSequenceClassification) -> list[PreTrainedModel]:
    """Return a student and a teacher of three labels, with different weights."""
    paths = [make("bert", layers, auto, seed=layers, num_labels=3) for layers in (2, 4)]
    return [auto.from_pretrained(path).eval() for path in paths]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["classification", "multi-label", "regression", "tokens"])
def test_soft_targets_of_every_kind_of_head(make_checkpoint: Callable[..., Path], kind: str) -> None:
    """The term ce and the readings are those of logits computed by transformers, the teacher's in another order."""
    auto = AutoModelForTokenClassification if kind == "tokens" else AutoModelForSequenceClassification
    student, teacher = classifiers(make_checkpoint, auto)
    batch, order = text_batch(), [2, 0, 1]
    objective = OutputDistillation(
        student, teacher, {"ce": 2.0, "hidden": 1.0}, kind=kind, order=order, temperature=3.0, layer_map=[1, 3]
    ).eval()
    with torch.no_grad():
        mine, other = student(**batch).logits, teacher(**batch).logits[..., order]
    if kind == "tokens":
        mine, other = (logits[batch["attention_mask"].bool()] for logits in (mine, other))

    def divergence(temperature: float) -> Tensor:
        ours, theirs = (logits / temperature for logits in (mine, other))
        if kind == "multi-label":
            p, q = theirs.sigmoid(), ours.sigmoid()
            return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean() * temperature**2
        p = theirs.softmax(-1)
        return (p * (p / ours.softmax(-1)).log()).sum(-1).mean() * temperature**2

    expected = (mine - other).pow(2).mean() if kind == "regression" else divergence(3.0)
    found = objective(batch)
    torch.testing.assert_close(found["ce"], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["loss"].detach(), 2 * found["ce"] + found["hidden"])
    readings = objective.readings(mine, other)
    if kind == "regression":
        assert readings == {"heldout_difference": pytest.approx((mine - other).abs().mean().item())}
        return
    same = (mine > 0) == (other > 0) if kind == "multi-label" else mine.argmax(-1) == other.argmax(-1)
    assert readings["heldout_agreement"] == pytest.approx(same.float().mean().item())
    assert readings["heldout_kl"] == pytest.approx(divergence(1.0).item(), rel=1e-3)


def test_the_student_trains_without_dropout(encoders: Encoders) -> None:
    """In training mode, too, the loss of a batch is the same each time."""
    objective = objective_of(encoders, WEIGHTS).train()
    assert objective.training
    assert objective(text_batch())["loss"] == objective(text_batch())["loss"]
