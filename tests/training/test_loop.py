"""The training loop: its updates, its log lines, and when it stops."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from line import Line, batches, stop_at
from torch import Tensor, nn

from distilkit.errors import DistilkitError
from distilkit.options.training import TrainOptions
from distilkit.training.loop import parameter_groups, train
from distilkit.training.resume import run_checkpoints


def test_updates_equal_a_plain_loop(tmp_path: Path) -> None:
    """AdamW, accumulation, clipping, warm-up and decay give the same weights as a plain PyTorch loop."""
    config = TrainOptions(
        steps=6, accumulate=3, lr=0.1, warmup=0.3, weight_decay=0.2, max_grad_norm=1.5, adam_beta2=0.9
    )
    model = Line()
    train(model, batches(), config, tmp_path)

    twin, numbered = Line(), batches()
    groups = [
        {"params": [twin.student.weight], "weight_decay": 0.2},
        {"params": [twin.student.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.9), eps=1e-6)
    for step in range(6):
        rate = step / 2 if step < 2 else (6 - step) / 4  # warm-up over ceil(0.3 · 6) = 2 updates, then down to 0
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * rate
        for micro in range(3):
            (twin(numbered[step * 3 + micro])["loss"] / 3).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.5)
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(model.student.weight, twin.student.weight)
    torch.testing.assert_close(model.student.bias, twin.student.bias)


class Headed(nn.Module):
    """A student with an encoder and a head, as transformers names them."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model, self.head = nn.Linear(1, 1), nn.Linear(1, 1)


@pytest.mark.parametrize(("lr", "trained"), [(0.0, {"head"}), (0.1, {"head", "base_model"})])
def test_an_encoder_at_rate_0_is_frozen(lr: float, trained: set[str]) -> None:
    """So autograd does not compute its gradients, and the optimizer has the head alone."""
    objective = nn.Module()
    objective.student = student = Headed()
    groups = parameter_groups(objective, TrainOptions(lr=lr, head_lr=0.2))
    assert {name.split(".")[0] for name, entry in student.named_parameters() if entry.requires_grad} == trained
    assert sum(len(group["params"]) for group in groups) == 2 * len(trained)


def test_freed_memory_is_returned_every_ten_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever --log-every is."""
    returned: list[None] = []
    monkeypatch.setattr("distilkit.training.loop.return_freed_memory", lambda: returned.append(None))
    train(Line(), batches(), TrainOptions(steps=25, log_every=1), tmp_path)
    assert len(returned) == 2


@pytest.mark.parametrize(("epochs", "accumulate", "updates"), [(1, 1, 5), (3, 1, 15), (1, 2, 3), (0.4, 1, 2)])
def test_epochs_become_updates(tmp_path: Path, epochs: float, accumulate: int, updates: int) -> None:
    """10 rows in batches of 2 are 5 batches an epoch; partial updates round up, so no row is dropped."""
    metrics = train(Line(), batches(), TrainOptions(epochs=epochs, accumulate=accumulate), tmp_path)

    assert metrics["updates"] == updates


def test_train_jsonl_has_a_line_per_update_and_evaluation(tmp_path: Path) -> None:
    """Lines have the documented keys, steps increase, and evaluations have heldout_loss."""
    config = TrainOptions(steps=4, log_every=3)
    metrics = train(Line(), batches(), config, tmp_path, evaluate=lambda: {"heldout_loss": 0.25}, evaluate_every=2)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "loss" in line]

    assert [line["step"] for line in updates] == [1, 2, 3, 4]
    assert updates[0].keys() == {"step", "loss", "square", "lr", "tokens", "seconds", "tokens_per_second"}
    assert [line["tokens"] for line in updates] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if "heldout_loss" in line] == [0, 2, 4]
    assert metrics["heldout_loss"] == 0.25


def test_a_loss_of_nan_stops_the_run(tmp_path: Path) -> None:
    """The error names the update and the option to change."""
    model = Line()
    with torch.no_grad():
        model.student.weight.fill_(math.nan)
    with pytest.raises(DistilkitError, match="at update 1: lower --lr"):
        train(model, batches(), TrainOptions(steps=2), tmp_path)


class Climbing(Line):
    """A loss of 1 that changes to `loss` after `wrong` forward passes."""

    def __init__(self, wrong: int, loss: float = 100.0) -> None:
        super().__init__()
        self.seen, self.wrong, self.wrong_loss = 0, wrong, loss

    def forward(self, batch: dict[str, Tensor], fractions: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        self.seen += 1
        fitted = super().forward(batch, fractions)["loss"]
        loss = fitted - fitted.detach() + (1.0 if self.seen <= self.wrong else self.wrong_loss)
        return {"loss": loss, "square": loss}


def test_a_rising_loss_gives_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The warning appears once, also across an interruption; the run completes and keeps its checkpoints."""
    config = TrainOptions(steps=400, checkpoint_every=55)
    with pytest.raises(MemoryError):
        train(Climbing(wrong=112), batches(), config, tmp_path, evaluate=stop_at(2), evaluate_every=115)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]

    assert "the training loss has risen: its median over the last 50 updates is 100, up" in line
    assert "lower --lr (now 0.0005)" in line
    assert [path.name for path in run_checkpoints(tmp_path)] == ["checkpoint-00000275", "checkpoint-00000330"]
    assert train(Climbing(wrong=0), batches(), replace(config, resume=True), tmp_path)["updates"] == 400
    assert "warning" not in capsys.readouterr().err


def test_a_checkpoint_with_bad_weights_is_deleted(tmp_path: Path) -> None:
    """If the loss is NaN at update 6, update 5 made the weights bad; the error names the checkpoint of update 4."""
    config = TrainOptions(steps=9, checkpoint_every=1, log_every=1)
    with pytest.raises(DistilkitError, match=r"is nan at update 6: .* continue from checkpoint-00000004"):
        train(Climbing(wrong=5, loss=math.nan), batches(), config, tmp_path)

    assert [path.name for path in run_checkpoints(tmp_path)] == ["checkpoint-00000004"]
    again = Climbing(wrong=1000)
    assert train(again, batches(), replace(config, lr=1e-4, resume=True), tmp_path)["updates"] == 9
    assert again.seen == 5


def test_gradients_are_shared_on_the_last_micro_batch_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three micro-batches per update, the first two run without synchronisation."""
    entered, no_sync = [], Accelerator.no_sync
    monkeypatch.setattr(Accelerator, "no_sync", lambda self, model: entered.append(model) or no_sync(self, model))
    train(Line(), batches(), TrainOptions(steps=4, accumulate=3), tmp_path)

    assert len(entered) == 4 * 2


def test_a_gradient_norm_of_0_clips_nothing(tmp_path: Path) -> None:
    """The weights are the same as with a very high limit."""
    lines = [Line(), Line()]
    for line, norm in zip(lines, (0.0, 1e9), strict=True):
        out = tmp_path / str(norm)
        out.mkdir()
        train(line, batches(), TrainOptions(steps=3, lr=0.1, max_grad_norm=norm), out)
    first, second = (line.student.weight.item() for line in lines)
    assert first == second != 0.5
