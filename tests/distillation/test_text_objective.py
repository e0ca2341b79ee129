"""The text objective against a plain implementation: full logits, boolean selection, textbook losses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from padded_text import padded_batch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from distilkit.distillation import fused_loss
from distilkit.distillation.presets import WEIGHTS
from distilkit.distillation.text_objective import Distillation
from distilkit.encoders.layers import extract
from distilkit.options.training import TrainOptions
from distilkit.training.devices import open_accelerator
from distilkit.training.loop import make_optimizer, update

Models = tuple[PreTrainedModel, PreTrainedModel]


def plain(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor], masked_only: bool
) -> dict[str, Tensor]:
    """Return the triple loss as in the paper and its published code, from full logits."""
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
    """Losses, gradients and the weights after four updates equal those of plain(), in one chunk or many."""
    monkeypatch.setitem(fused_loss.CHUNK_LOGITS, "cpu", rows * 400)
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


def test_masked_lm_equals_the_loss_of_transformers(models: Models) -> None:
    """Running the head at masked tokens only gives the loss that transformers computes from all tokens."""
    student, _ = models
    batch = padded_batch(1)

    assert Distillation(student, None, {"mlm": 1.0})(batch)["loss"].item() == pytest.approx(
        student(**batch).loss.item(), rel=1e-5
    )


def test_weights_multiply_the_loss_terms(models: Models) -> None:
    """Each weight multiplies its own loss term."""
    student, teacher = models
    parts = Distillation(student, teacher, {"ce": 0.5, "mlm": 0.0, "cos": 3.0})(padded_batch(2))

    assert parts["loss"].item() == pytest.approx(0.5 * parts["ce"].item() + 3 * parts["cos"].item(), rel=1e-5)


def test_teacher_is_neither_trained_nor_saved(models: Models) -> None:
    """The teacher is not among the parameters and the state of the objective, and place_teacher() moves it."""
    student, teacher = models
    objective = Distillation(student, teacher, WEIGHTS["triple"])
    objective.place_teacher(torch.device("cpu"), torch.float64, whole=True)

    assert len(list(objective.parameters())) == len(list(student.parameters()))
    assert not any("teacher" in name for name in objective.state_dict())
    assert next(teacher.parameters()).dtype == torch.float64
    objective.train()
    assert not teacher.training


class Waits(TorchDispatchMode):
    """Collect operations that make the CPU wait for the result of a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(operation) for name in ("nonzero", "_local_scalar_dense", "masked_select", "unique")):
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["triple", "attention", "minilm", "mlm"])
def test_nothing_in_an_update_waits_for_a_gpu(berts: tuple[Models, Models], name: str) -> None:
    """From prepared batches to the optimizer's step, nothing synchronises. There is no padding mask here, which
    transformers itself reads.
    """
    (student, teacher), _ = berts
    objective = Distillation(student, None if name == "mlm" else teacher, WEIGHTS[name], layer_map=[1, 3])
    accelerator, config = open_accelerator(TrainOptions()), TrainOptions(lr=1e-3, accumulate=2)
    optimizer, _ = make_optimizer(objective, config, 10)
    batch = padded_batch(0)
    del batch["attention_mask"]
    ready = [
        objective.prepare(batch),
        objective.prepare(padded_batch(1) | {"attention_mask": torch.ones(3, 12).long()}),
    ]
    del ready[1]["attention_mask"]
    with Waits() as seen:
        update(accelerator, objective, objective, optimizer, config, ready)

    assert seen.found == []


def test_unused_teacher_layers_are_dropped(berts: tuple[Models, Models]) -> None:
    """If the relations of layer 1 of 4 are compared, the teacher keeps two layers."""
    (student, teacher), _ = berts
    objective = Distillation(student, teacher, WEIGHTS["minilm"], layer_map=[0, 1])

    assert objective.teacher is not None
    assert objective.teacher.config.num_hidden_layers == 2


def test_only_masked_lm_remains_after_teacher_until(models: Models) -> None:
    """With teacher_until=0.5, the second half of a run does not use the teacher."""
    student, teacher = models
    objective = Distillation(student, teacher, WEIGHTS["triple"], teacher_until=0.5)
    objective.progress(0.49)
    assert set(objective(padded_batch(0))) == {"loss", "ce", "mlm", "cos"}
    objective.progress(0.5)
    alone = objective(padded_batch(0))
    assert set(alone) == {"loss", "mlm"}
    assert alone["loss"].item() == pytest.approx(2 * alone["mlm"].item(), rel=1e-5)


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_micro_batches_add_up_to_the_batch(models: Models, positions: str) -> None:
    """Terms of micro-batches with different numbers of tokens add up to the mean over all tokens."""
    student, teacher = models
    objective = Distillation(student, teacher, WEIGHTS["triple"], ce_positions=positions)
    whole = padded_batch(4)
    halves = [{name: tensor[rows] for name, tensor in whole.items()} for rows in (slice(0, 1), slice(1, 3))]
    counts = [objective.token_counts(half) for half in halves]
    fractions = [{name: count[name] / sum(each[name] for each in counts) for name in count} for count in counts]
    parts = [objective(half, share) for half, share in zip(halves, fractions, strict=True)]

    for name, value in objective(whole).items():
        assert sum(part[name].item() for part in parts) == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["triple", "attention"])
def test_a_cast_teacher_computes_the_same_under_autocast(berts: tuple[Models, Models], name: str) -> None:
    """Matrices cast once give the same as casting in every step. Embeddings and norms stay in fp32."""
    results = []
    for (student, teacher), cast in zip(berts, (True, False), strict=True):
        objective = Distillation(student, teacher, WEIGHTS[name], layer_map=[1, 3])
        if cast:
            objective.place_teacher(torch.device("cpu"), torch.bfloat16)
            encoder = objective.teacher.bert
            assert encoder.embeddings.word_embeddings.weight.dtype == torch.float32
            assert encoder.encoder.layer[0].intermediate.dense.weight.dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            results.append(objective(padded_batch(5)))

    for part, value in results[0].items():
        torch.testing.assert_close(value, results[1][part], rtol=1e-6, atol=0, msg=part)
