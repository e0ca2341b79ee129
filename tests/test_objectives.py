"""The objectives against a plain implementation: full logits, boolean selection, textbook losses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel

from distilkit.layers import extract
from distilkit.objectives import WEIGHTS, Distillation

FAMILIES = ["bert", "roberta", "distilbert"]
Models = tuple[PreTrainedModel, PreTrainedModel]


@pytest.fixture(params=FAMILIES)
def models(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> Models:
    """A teacher of four layers and a student of its layers 0 and 3, without dropout."""
    teacher = AutoModelForMaskedLM.from_pretrained(make_checkpoint(request.param, 4)).eval()
    return extract(teacher, [0, 3]), teacher


def padded_batch(seed: int) -> dict[str, Tensor]:
    """Three sequences of 12, 9 and 5 tokens with about one token in three to predict."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 400, (3, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([[12], [9], [5]])).long()
    chosen = (torch.rand(3, 12, generator=generator) < 0.35) & mask.bool()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.where(chosen, ids, -100)}


def plain(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor], masked_only: bool
) -> dict[str, Tensor]:
    """The triple loss as written in the paper and its published code, with every logit held."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        t = teacher(**inputs, output_hidden_states=True)
    s = student(**inputs, output_hidden_states=True)
    tokens = batch["attention_mask"].bool()  # (B, T)
    rows = batch["labels"] > -1 if masked_only else tokens
    p_t = torch.softmax(t.logits[rows] / 2, -1)  # (R, V)
    ce = (p_t * (p_t.log() - torch.log_softmax(s.logits[rows] / 2, -1))).sum() / rows.sum() * 4
    mlm = F.cross_entropy(s.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    ones = torch.ones(int(tokens.sum()))
    cos = F.cosine_embedding_loss(s.hidden_states[-1][tokens], t.hidden_states[-1][tokens], ones)
    return {"ce": ce, "mlm": mlm, "cos": cos, "loss": 5 * ce + 2 * mlm + cos}


@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("positions", ["all", "masked"])
def test_triple_loss_equals_the_plain_one(
    models: Models, positions: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, gradients and the weights after four updates agree with the plain ones to 1e-5, in one chunk or many."""
    monkeypatch.setattr("distilkit.losses.CHUNK", (rows * 400, rows * 400))
    student, teacher = models
    twin = extract(teacher, [0, 3])
    objective = Distillation(student, teacher, WEIGHTS["triple"], ce_positions=positions)
    ours, theirs = (
        torch.optim.AdamW(m.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0) for m in (student, twin)
    )
    for seed in range(4):
        batch = padded_batch(seed)
        found, expected = objective(batch), plain(twin, teacher, batch, positions == "masked")
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        found["loss"].backward()
        expected["loss"].backward()
        for (name, mine), other in zip(student.named_parameters(), twin.parameters(), strict=True):
            if other.grad is not None:
                torch.testing.assert_close(
                    mine.grad, other.grad, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
                )
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
    for mine, other in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_masked_lm_equals_the_models_own_loss(models: Models) -> None:
    """The head run at masked positions only gives what transformers computes from all of them."""
    student, _ = models
    batch = padded_batch(1)

    assert Distillation(student, None, {"mlm": 1.0})(batch)["loss"].item() == pytest.approx(
        student(**batch).loss.item(), rel=1e-5
    )


def test_weights_scale_the_parts(models: Models) -> None:
    """Each alpha multiplies its own part."""
    student, teacher = models
    parts = Distillation(student, teacher, {"ce": 0.5, "mlm": 0.0, "cos": 3.0})(padded_batch(2))

    assert parts["loss"].item() == pytest.approx(0.5 * parts["ce"].item() + 3 * parts["cos"].item(), rel=1e-5)


def test_teacher_is_neither_trained_nor_saved_but_moves_along(models: Models) -> None:
    """The teacher is no parameter and no state of the objective, yet .to() takes it too."""
    student, teacher = models
    objective = Distillation(student, teacher, WEIGHTS["triple"]).to(torch.float64)

    assert len(list(objective.parameters())) == len(list(student.parameters()))
    assert not any("teacher" in name for name in objective.state_dict())
    assert next(teacher.parameters()).dtype == torch.float64
    objective.train()
    assert not teacher.training
