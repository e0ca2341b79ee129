"""TaskLoss by hand for every kind of task, with and without a teacher."""

import math
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from distilkit.distillation.task_objective import TaskLoss


class Fixed(torch.nn.Module):
    """A model with a given output."""

    config = None

    def __init__(self, **output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, **_: torch.Tensor) -> Any:
        return type("Output", (), self.output)


def test_classification_loss_by_hand() -> None:
    """The weighted sum of cross-entropy and the KL divergence from a teacher with swapped outputs."""
    student, expert = (Fixed(logits=torch.tensor([[math.log(3.0), 0.0]])) for _ in range(2))
    batch = {"input_ids": torch.zeros(1, 1), "labels": torch.tensor([1])}
    options = {"teacher": expert, "teacher_inputs": ("input_ids",), "temperature": 1.0}
    objective = TaskLoss(
        student, "classification", ("input_ids",), order=(1, 0), alpha_task=2.0, alpha_ce=3.0, **options
    )  # type: ignore[arg-type]
    task, ce = math.log(4), 1 / 4 * math.log(1 / 3) + 3 / 4 * math.log(3)  # (1/4, 3/4) against (3/4, 1/4)
    expected = {"loss": 2 * task + 3 * ce, "task": task, "ce": ce}
    assert {name: float(value) for name, value in objective(batch).items()} == pytest.approx(expected)


def test_class_weights_by_hand() -> None:
    """Each row counts by its class's weight, in a mean over rows, so that micro-batches add up."""
    student = Fixed(logits=torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]))
    batch = {"input_ids": torch.zeros(2, 1), "labels": torch.tensor([0, 1])}
    weights = torch.tensor([0.5, 2.0])
    objective = TaskLoss(student, "classification", ("input_ids",), class_weights=weights)  # type: ignore[arg-type]
    expected = (0.5 * math.log(4 / 3) + 2 * math.log(2)) / 2
    assert float(objective(batch)["loss"]) == pytest.approx(expected)


def test_regression_loss_by_hand() -> None:
    """The squared errors are (3 - 1)² against the label and (3 - 2)² against the teacher."""
    student, expert = Fixed(logits=torch.tensor([[3.0]])), Fixed(logits=torch.tensor([[2.0]]))
    batch = {"input_ids": torch.zeros(1, 1), "labels": torch.tensor([1.0])}
    objective = TaskLoss(student, "regression", ("input_ids",), teacher=expert, teacher_inputs=("input_ids",))  # type: ignore[arg-type]
    assert {name: float(value) for name, value in objective(batch).items()} == {"loss": 2.5, "task": 4.0, "ce": 1.0}


def test_span_loss_ignores_padding() -> None:
    """Padding takes no share of a span's probabilities, whatever its logits."""
    real = torch.tensor([[math.log(3.0), 0.0]])
    wild = torch.cat([real, torch.full((1, 1), 50.0)], dim=1)
    flat = torch.tensor([[0.0, 0.0, -7.0]])
    student = Fixed(start_logits=wild, end_logits=wild)
    expert = Fixed(start_logits=flat, end_logits=flat)
    batch = {
        "input_ids": torch.zeros(1, 3),
        "attention_mask": torch.tensor([[1, 1, 0]]),
        "start_positions": torch.tensor([0]),
        "end_positions": torch.tensor([1]),
    }
    options = {"teacher": expert, "teacher_inputs": ("input_ids",), "temperature": 1.0}
    losses = TaskLoss(student, "span", ("input_ids",), **options)(batch)  # type: ignore[arg-type]
    assert float(losses["task"]) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert float(losses["ce"]) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_multi_label_loss_by_hand() -> None:
    """Means over labels: binary cross-entropy, and T² times the binary KL from the teacher with swapped outputs."""
    student, expert = Fixed(logits=torch.tensor([[1.0, -2.0]])), Fixed(logits=torch.tensor([[4.0, 0.5]]))
    batch = {"input_ids": torch.zeros(1, 1), "labels": torch.tensor([[1.0, 0.0]])}
    options = {"teacher": expert, "teacher_inputs": ("input_ids",), "order": (1, 0), "temperature": 2.0}
    found = TaskLoss(student, "multi-label", ("input_ids",), **options)(batch)  # type: ignore[arg-type]
    task = -(math.log(sigmoid(1.0)) + math.log(1 - sigmoid(-2.0))) / 2
    parts = []
    for ours, theirs in ((1.0, 0.5), (-2.0, 4.0)):
        p, q = sigmoid(theirs / 2), sigmoid(ours / 2)
        parts.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    ce = 4 * sum(parts) / 2
    expected = {"loss": 0.5 * task + 0.5 * ce, "task": task, "ce": ce}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected)


def test_windows_are_averaged_by_hand() -> None:
    """A row's logits are the mean over its windows. A teacher with a tokenizer of its own has other windows."""
    student = Fixed(logits=torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 3.0]]))
    expert = Fixed(logits=torch.tensor([[0.0, 2.0], [2.0, 0.0], [1.0, 1.0]]))
    batch = {
        "input_ids": torch.zeros(3, 1), "owners": torch.tensor([0, 1, 1]),
        "teacher_input_ids": torch.zeros(3, 1), "teacher_owners": torch.tensor([0, 0, 1]),
        "labels": torch.tensor([0, 1]),
    }  # fmt: skip
    options = {"teacher": expert, "teacher_inputs": ("input_ids",), "order": (0, 1), "prefix": "teacher_"}
    found = TaskLoss(student, "classification", ("input_ids",), **options)(batch)  # type: ignore[arg-type]
    assert float(found["task"]) == pytest.approx(math.log(2))  # all mean logits are equal
    assert float(found["ce"]) == pytest.approx(0.0, abs=1e-6)


def test_span_loss_without_an_attention_mask() -> None:
    """FNet takes no attention mask, so every token counts."""
    flat = torch.zeros(1, 4)
    batch = {
        "input_ids": torch.zeros(1, 4),
        "start_positions": torch.tensor([0]),
        "end_positions": torch.tensor([1]),
    }
    found = TaskLoss(Fixed(start_logits=flat, end_logits=flat), "span", ("input_ids",))(batch)  # type: ignore[arg-type]
    assert float(found["task"]) == pytest.approx(math.log(4))


def classifier(layers: int, width: int = 32, seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    shape = {"hidden_size": width, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 50}
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers, **shape)).eval()


def padded() -> dict[str, torch.Tensor]:
    ids = torch.arange(15).reshape(3, 5) + 3
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0])}


def test_hidden_states_and_attention_of_a_task_teacher() -> None:
    """The terms equal those of the states and attention maps that transformers returns, padding left out."""
    student, teacher, batch = classifier(2), classifier(4, seed=1), padded()
    names = ("input_ids", "attention_mask")
    objective = TaskLoss(
        student, "classification", names, teacher=teacher, teacher_inputs=names, order=(0, 1),
        layer_weights={"hidden": 3.0, "attention": 2.0}, layer_map=(1, 3),
    )  # fmt: skip
    found = {name: value.item() for name, value in objective(batch).items()}

    for model in (student, teacher):
        model.set_attn_implementation("eager")
    inputs = {name: batch[name] for name in names}
    ours, theirs = (m.bert(**inputs, output_hidden_states=True, output_attentions=True) for m in (student, teacher))
    real = batch["attention_mask"].bool()
    squares = [(ours.hidden_states[i + 1] - theirs.hidden_states[j + 1])[real].square() for i, j in ((0, 1), (1, 3))]
    assert found["hidden"] == pytest.approx(torch.stack(squares).mean().item(), rel=1e-5)
    each = []
    for i, j in ((0, 1), (1, 3)):
        for row, length in enumerate((5, 3, 2)):
            p, q = (side.attentions[k][row, :, :length, :length] for side, k in ((theirs, j), (ours, i)))
            each.append((i, (p * (p / q).log()).sum(-1).flatten()))  # heads and queries
    layers = [torch.cat([part for k, part in each if k == i]).mean() for i in (0, 1)]
    assert found["attention"] == pytest.approx(torch.stack(layers).mean().item(), rel=1e-4)
    total = 0.5 * found["task"] + 0.5 * found["ce"] + 3 * found["hidden"] + 2 * found["attention"]
    assert found["loss"] == pytest.approx(total, rel=1e-5)


def test_micro_batches_add_up_to_the_batch() -> None:
    """Terms of micro-batches with different numbers of tokens add up to the mean over all tokens."""
    names = ("input_ids", "attention_mask")
    objective = TaskLoss(
        classifier(2), "classification", names, teacher=classifier(4, seed=1), teacher_inputs=names, order=(0, 1),
        layer_weights={"hidden": 1.0}, layer_map=(1, 3),
    )  # fmt: skip
    whole = padded()
    parts = [{name: tensor[rows] for name, tensor in whole.items()} for rows in (slice(0, 1), slice(1, 3))]
    counts = [objective.token_counts(part) for part in parts]
    fractions = [{name: count[name] / sum(each[name] for each in counts) for name in count} for count in counts]
    found = [objective(part, share) for part, share in zip(parts, fractions, strict=True)]
    for name, value in objective(whole).items():
        # `ce` is about 4e-5: T² = 4 times a KL divergence of nearly equal distributions. Its terms are log
        # probabilities of about ln 2, so float32 rounds at their scale, not at that of their difference.
        rounding = 4 * math.log(2) * torch.finfo(torch.float32).eps
        assert sum(part[name].item() for part in found) == pytest.approx(value.item(), rel=1e-5, abs=rounding), name
