"""Fine-tuning: what is learnt, what is written, and what --seeds, --teacher and --resume do."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from distilkit import evaluation, finetuning, tasks
from distilkit.config import EvalConfig, FinetuneConfig
from distilkit.errors import DistilkitError
from distilkit.objectives import TaskLoss
from distilkit.record import read_biography

CLASSIFIER = AutoModelForSequenceClassification


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def sentences(prose: list[str], names: tuple[object, object] = (0, 1)) -> list[dict[str, Any]]:
    """Rows that are easy to tell apart: the label is said in the words."""
    words = ("return the value", "raise an error if")
    return [{"sentence": f"{words[n % 2]} {prose[n][:20]}", "label": names[n % 2]} for n in range(32)]


@pytest.fixture(scope="module")
def sst2(tmp_path_factory: pytest.TempPathFactory, prose: list[str]) -> Path:
    """A folder with an easy SST-2."""
    folder = tmp_path_factory.mktemp("sst2")
    write_rows(folder / "train.jsonl", sentences(prose))
    return write_rows(folder / "validation.jsonl", sentences(prose)[:16])


@pytest.fixture
def config(teacher: Path, sst2: Path, tmp_path: Path) -> FinetuneConfig:
    """Ten updates on the easy SST-2, from a masked-LM checkpoint."""
    return FinetuneConfig(
        model=str(teacher),
        task="sst2",
        data=sst2,
        output=tmp_path / "out",
        steps=10,
        batch_size=8,
        lr=3e-3,
        max_length=32,
    )


def test_learns_and_writes_a_checkpoint(config: FinetuneConfig) -> None:
    """An easy task is learnt, and the output is a checkpoint with named labels that scores what was reported."""
    done = finetuning.finetune(replace(config, steps=60))
    assert done.metrics["sst2/accuracy"] == 1.0
    assert done.metrics["updates"] == 60
    assert [entry.to_json() for entry in read_biography(config.output)] == [done.to_json()]
    model, tokenizer = CLASSIFIER.from_pretrained(config.output), AutoTokenizer.from_pretrained(config.output)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert len(tokenizer) == model.config.vocab_size
    again = evaluation.evaluate(EvalConfig(models=(str(config.output),), task="sst2", data=config.data, max_length=32))
    assert again.metrics["sst2/accuracy"] == done.metrics["sst2/accuracy"]
    assert not list(config.output.glob("checkpoint-*"))


def test_custom_labels_are_kept(config: FinetuneConfig, prose: list[str], tmp_path: Path) -> None:
    """A custom task's strings become the model's labels, so that eval needs no list of them."""
    data = write_rows(tmp_path / "mine" / "train.jsonl", sentences(prose, ("spam", "ham")))
    write_rows(data / "validation.jsonl", sentences(prose, ("spam", "ham")))
    custom = {"task": "custom", "data": data, "text": ("sentence",), "label": "label"}
    done = finetuning.finetune(replace(config, steps=60, **custom))
    assert CLASSIFIER.from_pretrained(config.output).config.id2label == {0: "ham", 1: "spam"}
    again = evaluation.evaluate(EvalConfig(models=(str(config.output),), max_length=32, **custom))
    assert again.metrics["custom/accuracy"] == done.metrics["custom/accuracy"] == 1.0


def test_seeds_keep_the_median_run(config: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are medians with their range, the kept weights are the median run's, and nothing else is left."""
    scores, kept = iter([0.9, 0.1, 0.5]), {}

    def score(model: Any, *_: object) -> dict[str, float]:
        kept[value := next(scores)] = model.classifier.weight.detach().clone()
        return {"sst2/accuracy": value}

    monkeypatch.setattr(evaluation, "score", score)
    done = finetuning.finetune(replace(config, steps=2, seeds=3, seed=7))
    assert [done.metrics[f"sst2/accuracy{end}"] for end in ("", "/min", "/max")] == [0.5, 0.1, 0.9]
    assert torch.equal(CLASSIFIER.from_pretrained(config.output).classifier.weight, kept[0.5])
    assert not torch.equal(kept[0.1], kept[0.9])
    assert not list(config.output.glob("seed-*"))
    assert [entry.command for entry in read_biography(config.output)] == ["finetune"]


def test_seeds_resume_skips_finished_runs(config: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption in the second of two seeds, --resume makes only the second, and refuses other options."""
    run, ran = finetuning.run, []

    def interrupted(job: finetuning.Job, one: FinetuneConfig) -> Any:
        ran.append(one.seed)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run(job, one)

    monkeypatch.setattr(finetuning, "run", interrupted)
    many = replace(config, steps=2, seeds=2, seed=1)
    with pytest.raises(KeyboardInterrupt):
        finetuning.finetune(many)
    with pytest.raises(DistilkitError, match=r"--lr was 0.003 .* now 0.1: --resume needs the same"):
        finetuning.finetune(replace(many, resume=True, lr=0.1))
    done = finetuning.finetune(replace(many, resume=True))
    assert ran == [1, 2, 2]
    assert {"sst2/accuracy", "sst2/accuracy/min", "sst2/accuracy/max"} <= set(done.metrics)


def test_resume_gives_the_uninterrupted_run(config: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that failed after a checkpoint goes on to the very weights of one that did not."""
    straight = replace(config, output=config.output.with_name("straight"))
    finetuning.finetune(straight)
    forward, calls = TaskLoss.forward, iter(range(100))

    def failing(self: TaskLoss, *given: Any) -> dict[str, torch.Tensor]:
        if next(calls) == 7:
            raise DistilkitError("power cut")
        return forward(self, *given)

    monkeypatch.setattr(TaskLoss, "forward", failing)
    with pytest.raises(DistilkitError, match="power cut"):
        finetuning.finetune(replace(config, checkpoint_every=5))
    assert (config.output / "checkpoint-00000005").is_dir()
    finetuning.finetune(replace(config, checkpoint_every=5, resume=True))
    one, other = (CLASSIFIER.from_pretrained(path).state_dict() for path in (straight.output, config.output))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_failed_run_leaves_nothing(config: FinetuneConfig) -> None:
    """Validation rows are read before anything is trained; without them no output directory stays behind."""
    data = config.output.with_name("half")
    write_rows(data / "train.jsonl", [{"sentence": "a", "label": 1}])
    with pytest.raises(DistilkitError, match="no validation"):
        finetuning.finetune(replace(config, data=data))
    assert not config.output.exists()


def test_learns_from_a_teacher_that_names_labels_in_another_order(
    config: FinetuneConfig, make_checkpoint: Callable[..., Path]
) -> None:
    """With --alpha-task 0 the student takes on the teacher's answers, label by label."""
    good = finetuning.finetune(replace(config, steps=60, output=config.output.with_name("good")))
    assert good.metrics["sst2/accuracy"] == 1.0
    expert = CLASSIFIER.from_pretrained(config.output.with_name("good"))
    with torch.no_grad():  # the same model with its two outputs swapped
        expert.classifier.weight.copy_(expert.classifier.weight.flip(0))
        expert.classifier.bias.copy_(expert.classifier.bias.flip(0))
    expert.config.id2label = {0: "positive", 1: "negative"}
    expert.save_pretrained(config.output.with_name("good"))
    learner = replace(config, steps=60, teacher=str(config.output.with_name("good")), alpha_task=0.0, alpha_ce=1.0)
    assert finetuning.finetune(learner).metrics["sst2/accuracy"] == 1.0
    line = json.loads((config.output / "train.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert line["loss"] == pytest.approx(line["ce"])


def test_refuses_teachers_that_do_not_fit(
    config: FinetuneConfig, make_checkpoint: Callable[..., Path], prose: list[str]
) -> None:
    """A teacher with other labels or another vocabulary is refused before anything is trained."""
    other = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "joy", 1: "fear"})
    with pytest.raises(DistilkitError, match="predicts joy, fear, but sst2 has negative, positive"):
        finetuning.finetune(replace(config, teacher=str(other)))
    stranger = make_checkpoint("bert", 1, CLASSIFIER)
    tokenizer = AutoTokenizer.from_pretrained(stranger)
    tokenizer.add_tokens(["strange"])
    tokenizer.save_pretrained(stranger)
    with pytest.raises(DistilkitError, match="--teacher has another vocabulary"):
        finetuning.finetune(replace(config, teacher=str(stranger)))
    assert not config.output.exists()


def test_squad_with_a_teacher(
    config: FinetuneConfig, make_checkpoint: Callable[..., Path], prose: list[str], tmp_path: Path
) -> None:
    """SQuAD trains on windows of long contexts, here a DistilBERT beside a BERT, and is scored from 0 to 100."""
    context = " ".join(prose[:6])
    answers = {"text": [context[:8]], "answer_start": [0]}
    rows = [{"id": str(n), "question": "what?", "context": context, "answers": answers} for n in range(4)]
    data = write_rows(tmp_path / "squad" / "train.jsonl", rows)
    write_rows(data / "validation.jsonl", rows)
    options = {"task": "squad", "data": data, "max_length": 64, "stride": 16, "steps": 2}
    options |= {"model": str(make_checkpoint("distilbert", 2))}
    expert = make_checkpoint("bert", 2, AutoModelForQuestionAnswering)
    done = finetuning.finetune(replace(config, teacher=str(expert), **options))
    assert 0 <= done.metrics["squad/f1"] <= 100
    AutoModelForQuestionAnswering.from_pretrained(config.output)


def test_glue_trains_nine(
    config: FinetuneConfig, make_checkpoint: Callable[..., Path], prose: list[str], tmp_path: Path
) -> None:
    """`--task glue` makes nine checkpoints and a record with the averages, which eval finds again."""
    for task in tasks.GLUE:
        width = max(2, len(task.labels))
        rows = [dict.fromkeys(task.text, text) | {"label": n % width} for n, text in enumerate(prose[:6])]
        write_rows(tmp_path / "glue" / task.name / "train.jsonl", rows)
        write_rows(tmp_path / "glue" / task.name / f"{task.splits[0][1]}.jsonl", rows)
    whole = replace(
        config, task="glue", data=tmp_path / "glue", steps=1, batch_size=2, model=str(make_checkpoint("bert", 1))
    )
    done = finetuning.finetune(whole)
    again = evaluation.evaluate(EvalConfig(models=(str(config.output),), task="glue", data=whole.data, max_length=32))
    assert done.metrics == pytest.approx(again.metrics, abs=1e-4)
    assert all((config.output / task.name / "distilkit.json").is_file() for task in tasks.GLUE)
    stsb = CLASSIFIER.from_pretrained(config.output / "stsb").config
    assert (stsb.num_labels, stsb.problem_type) == (1, "regression")


class Fixed(torch.nn.Module):
    """A model whose output is given."""

    def __init__(self, **output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, **_: torch.Tensor) -> Any:
        return type("Output", (), self.output)


def test_classification_loss_by_hand() -> None:
    """Cross-entropy, and KL to a teacher who says the same of its own, swapped outputs, weighted and added."""
    student, expert = (Fixed(logits=torch.tensor([[math.log(3.0), 0.0]])) for _ in range(2))
    batch = {"input_ids": torch.zeros(1, 1), "labels": torch.tensor([1])}
    options = {"teacher": expert, "teacher_inputs": ("input_ids",), "temperature": 1.0}
    objective = TaskLoss(
        student, "classification", ("input_ids",), order=(1, 0), alpha_task=2.0, alpha_ce=3.0, **options
    )  # type: ignore[arg-type]
    task, ce = math.log(4), 1 / 4 * math.log(1 / 3) + 3 / 4 * math.log(3)  # (1/4, 3/4) against (3/4, 1/4)
    expected = {"loss": 2 * task + 3 * ce, "task": task, "ce": ce}
    assert {name: float(value) for name, value in objective(batch).items()} == pytest.approx(expected)


def test_regression_loss_by_hand() -> None:
    """Squared errors: to the label (3 - 1)², and to the teacher's number (3 - 2)²."""
    student, expert = Fixed(logits=torch.tensor([[3.0]])), Fixed(logits=torch.tensor([[2.0]]))
    batch = {"input_ids": torch.zeros(1, 1), "labels": torch.tensor([1.0])}
    objective = TaskLoss(student, "regression", ("input_ids",), teacher=expert, teacher_inputs=("input_ids",))  # type: ignore[arg-type]
    assert {name: float(value) for name, value in objective(batch).items()} == {"loss": 2.5, "task": 4.0, "ce": 1.0}


def test_span_loss_leaves_out_padding() -> None:
    """Padding takes no share of a span's probabilities, whatever the logits there."""
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


def test_teacher_is_neither_trained_nor_saved(
    tokenizer: PreTrainedTokenizerFast, make_checkpoint: Callable[..., Path]
) -> None:
    """The teacher moves with the objective but is no part of its parameters, and stays in evaluation mode."""
    student, expert = (CLASSIFIER.from_pretrained(make_checkpoint("bert", 1, CLASSIFIER, seed=seed)) for seed in (0, 1))
    objective = TaskLoss(student, "classification", ("input_ids",), teacher=expert).train()
    assert {id(parameter) for parameter in objective.parameters()} == {
        id(parameter) for parameter in student.parameters()
    }
    assert not expert.training
    objective.to(torch.float64)
    assert next(expert.parameters()).dtype == torch.float64
