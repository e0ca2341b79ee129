"""finetune: what it learns and writes; --seeds, --teacher, --keep, --resume and --task glue."""

import json
import signal
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

from distilkit.commands import evaluate, finetune
from distilkit.commands.finetune_inputs import TrainingInputs
from distilkit.distillation.task_objective import TaskLoss
from distilkit.errors import DistilkitError
from distilkit.evaluation import scoring
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.record import read_biography
from distilkit.tasks.catalogue import GLUE, TASKS

CLASSIFIER = AutoModelForSequenceClassification


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def easy_rows(prose: list[str], names: tuple[object, object] = (0, 1)) -> list[dict[str, Any]]:
    """Return rows that are easy to classify, because the first words give away the label."""
    words = ("return the value", "raise an error if")
    return [{"sentence": f"{words[n % 2]} {prose[n][:20]}", "label": names[n % 2]} for n in range(32)]


def read_log(directory: Path) -> list[dict[str, float]]:
    """Read the lines of train.jsonl."""
    return [json.loads(line) for line in (directory / "train.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sst2(tmp_path_factory: pytest.TempPathFactory, prose: list[str]) -> Path:
    """A folder with an easy SST-2."""
    folder = tmp_path_factory.mktemp("sst2")
    write_rows(folder / "train.jsonl", easy_rows(prose))
    return write_rows(folder / "validation.jsonl", easy_rows(prose)[:16])


@pytest.fixture
def options(teacher: Path, sst2: Path, tmp_path: Path) -> FinetuneOptions:
    """Ten updates on the easy SST-2, from a masked-LM checkpoint."""
    return FinetuneOptions(
        model=str(teacher),
        task="sst2",
        data=sst2,
        output=tmp_path / "out",
        steps=10,
        batch_size=8,
        lr=3e-3,
        max_length=32,
    )


def test_learns_and_writes_a_checkpoint(options: FinetuneOptions) -> None:
    """The model learns an easy task. The output is a checkpoint with label names and the reported score."""
    done = finetune.finetune(replace(options, steps=60))
    assert done.metrics["sst2/accuracy"] == 1.0
    assert done.metrics["updates"] == 60
    assert [entry.to_json() for entry in read_biography(options.output)] == [done.to_json()]
    model, tokenizer = CLASSIFIER.from_pretrained(options.output), AutoTokenizer.from_pretrained(options.output)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert len(tokenizer) == model.config.vocab_size
    again = evaluate.evaluate(EvalOptions(models=(str(options.output),), task="sst2", data=options.data, max_length=32))
    assert again.metrics["sst2/accuracy"] == done.metrics["sst2/accuracy"]
    assert not list(options.output.glob("checkpoint-*"))


def test_custom_labels_are_kept(options: FinetuneOptions, prose: list[str], tmp_path: Path) -> None:
    """A custom task's strings become the model's labels, so eval needs no list of labels."""
    data = write_rows(tmp_path / "mine" / "train.jsonl", easy_rows(prose, ("spam", "ham")))
    write_rows(data / "validation.jsonl", easy_rows(prose, ("spam", "ham")))
    custom = {"task": "custom", "data": data, "text": ("sentence",), "label": "label"}
    done = finetune.finetune(replace(options, steps=60, **custom))
    assert CLASSIFIER.from_pretrained(options.output).config.id2label == {0: "ham", 1: "spam"}
    keys = {key for line in read_log(options.output) for key in line if "custom" in key}
    assert keys - {"custom/collapsed"} == {"custom/accuracy", "custom/f1_macro"}  # class scores are no curves
    again = evaluate.evaluate(EvalOptions(models=(str(options.output),), max_length=32, **custom))
    assert again.metrics["custom/accuracy"] == done.metrics["custom/accuracy"] == 1.0


def test_seeds_keep_the_median_run(options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are medians with their range, the weights are those of the median run, and the other runs are deleted."""
    scores, kept = iter([0.9, 0.1, 0.5]), {}

    def score(model: Any, *_: object, **__: object) -> dict[str, float]:
        kept[value := next(scores)] = model.classifier.weight.detach().clone()
        return {"sst2/accuracy": value}

    monkeypatch.setattr(finetune, "score", score)
    done = finetune.finetune(replace(options, steps=2, seeds=3, seed=7))
    assert [done.metrics[f"sst2/accuracy{end}"] for end in ("", "/min", "/max")] == [0.5, 0.1, 0.9]
    assert torch.equal(CLASSIFIER.from_pretrained(options.output).classifier.weight, kept[0.5])
    assert not torch.equal(kept[0.1], kept[0.9])
    assert not list(options.output.glob("seed-*"))
    assert [entry.command for entry in read_biography(options.output)] == ["finetune"]


def test_seeds_resume_skips_finished_runs(options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption in the second of two seeds, --resume trains only the second and refuses other options."""
    run, ran = finetune.train_seed, []

    def interrupted(inputs: TrainingInputs, one: FinetuneOptions) -> Any:
        ran.append(one.seed)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run(inputs, one)

    monkeypatch.setattr(finetune, "train_seed", interrupted)
    many = replace(options, steps=2, seeds=2, seed=1)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(many)
    with pytest.raises(DistilkitError, match=r"--lr was 0.003 .* now 0.1: --resume"):
        finetune.finetune(replace(many, resume=True, lr=0.1))
    with pytest.raises(DistilkitError, match=r"has seed-.*--seeds"):
        finetune.finetune(replace(many, resume=True, seeds=1))
    done = finetune.finetune(replace(many, resume=True))
    assert ran == [1, 2, 2]
    assert {"sst2/accuracy", "sst2/accuracy/min", "sst2/accuracy/max"} <= set(done.metrics)


def test_a_signal_in_a_seeds_last_evaluation_stops_the_next(
    options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one SIGTERM the finished seed is kept, and the next one stops after its first update."""
    score, scored = scoring.score, []

    def signalled(*args: Any, **keywords: Any) -> dict[str, float]:
        scored.append(args)
        if len(scored) == 1:
            signal.raise_signal(signal.SIGTERM)
        return score(*args, **keywords)

    monkeypatch.setattr(finetune, "score", signalled)
    many = replace(options, steps=2, seeds=2, seed=1, keep="last")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(many)
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_biography(options.output / "seed-1")
    assert [path.name for path in (options.output / "seed-2").glob("checkpoint-*")] == ["checkpoint-00000001"]
    assert finetune.finetune(replace(many, resume=True)).metrics["updates"] == 2


def test_resume_gives_the_uninterrupted_run(options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is resumed from a checkpoint ends with the same weights as an uninterrupted one."""
    straight = replace(options, output=options.output.with_name("straight"))
    finetune.finetune(straight)
    forward, calls = TaskLoss.forward, iter(range(100))

    def failing(self: TaskLoss, *given: Any) -> dict[str, torch.Tensor]:
        if next(calls) == 7:
            raise DistilkitError("power cut")
        return forward(self, *given)

    monkeypatch.setattr(TaskLoss, "forward", failing)
    with pytest.raises(DistilkitError, match="power cut"):
        finetune.finetune(replace(options, checkpoint_every=5))
    assert (options.output / "checkpoint-00000005").is_dir()
    finetune.finetune(replace(options, checkpoint_every=5, resume=True))
    assert not [*options.output.glob("checkpoint-*"), *options.output.glob("run.json")]
    one, other = (CLASSIFIER.from_pretrained(path).state_dict() for path in (straight.output, options.output))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_failed_run_leaves_nothing(options: FinetuneOptions) -> None:
    """Without validation rows the run fails before the training, and no output directory is left."""
    data = options.output.with_name("half")
    write_rows(data / "train.jsonl", [{"sentence": "a", "label": 1}])
    with pytest.raises(DistilkitError, match="no validation"):
        finetune.finetune(replace(options, data=data))
    assert not options.output.exists()


def test_learns_from_a_teacher_that_names_labels_in_another_order(
    options: FinetuneOptions, make_checkpoint: Callable[..., Path]
) -> None:
    """With --alpha-task 0 the student learns the teacher's outputs, matched by label name."""
    good = finetune.finetune(replace(options, steps=60, output=options.output.with_name("good")))
    assert good.metrics["sst2/accuracy"] == 1.0
    expert = CLASSIFIER.from_pretrained(options.output.with_name("good"))
    with torch.no_grad():  # the same model with its two outputs swapped
        expert.classifier.weight.copy_(expert.classifier.weight.flip(0))
        expert.classifier.bias.copy_(expert.classifier.bias.flip(0))
    expert.config.id2label = {0: "positive", 1: "negative"}
    expert.save_pretrained(options.output.with_name("good"))
    learner = replace(options, steps=60, teacher=str(options.output.with_name("good")), alpha_task=0.0, alpha_ce=1.0)
    assert finetune.finetune(learner).metrics["sst2/accuracy"] == 1.0
    line = next(line for line in reversed(read_log(options.output)) if "loss" in line)
    assert line["loss"] == pytest.approx(line["ce"])


def test_refuses_teachers_of_other_labels(options: FinetuneOptions, make_checkpoint: Callable[..., Path]) -> None:
    """A teacher with other labels is refused before the training."""
    other = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "joy", 1: "fear"})
    with pytest.raises(DistilkitError, match=r"joy, fear, .* negative, positive"):
        finetune.finetune(replace(options, teacher=str(other)))
    assert not options.output.exists()


def test_squad_with_a_teacher(
    options: FinetuneOptions, make_checkpoint: Callable[..., Path], prose: list[str], tmp_path: Path
) -> None:
    """A DistilBERT learns SQuAD from a BERT, on windows of long contexts. Scores are from 0 to 100."""
    context = " ".join(prose[:6])
    answers = {"text": [context[:8]], "answer_start": [0]}
    rows = [{"id": str(n), "question": "what?", "context": context, "answers": answers} for n in range(4)]
    data = write_rows(tmp_path / "squad" / "train.jsonl", rows)
    write_rows(data / "validation.jsonl", rows)
    changes = {"task": "squad", "data": data, "max_length": 64, "stride": 16, "steps": 2}
    changes |= {"model": str(make_checkpoint("distilbert", 2))}
    expert = make_checkpoint("bert", 2, AutoModelForQuestionAnswering)
    done = finetune.finetune(replace(options, teacher=str(expert), **changes))
    assert 0 <= done.metrics["squad/f1"] <= 100
    AutoModelForQuestionAnswering.from_pretrained(options.output)


@pytest.fixture
def glue(options: FinetuneOptions, make_checkpoint: Callable[..., Path], tmp_path: Path) -> FinetuneOptions:
    """One update per GLUE task, with a one-layer model and made-up rows."""
    for task in GLUE:
        rows = [dict.fromkeys(task.text, f"the value {n}") | {"label": n % max(2, len(task.labels))} for n in range(6)]
        write_rows(tmp_path / "glue" / task.name / "train.jsonl", rows)
        write_rows(tmp_path / "glue" / task.name / f"{task.splits[0][1]}.jsonl", rows)
    model = str(make_checkpoint("bert", 1))
    return replace(options, task="glue", data=tmp_path / "glue", steps=1, batch_size=2, model=model)


def test_glue_trains_nine(glue: FinetuneOptions) -> None:
    """`--task glue` writes nine checkpoints and a record with the averages. eval finds the same scores."""
    done = finetune.finetune(glue)
    again = evaluate.evaluate(EvalOptions(models=(str(glue.output),), task="glue", data=glue.data, max_length=32))
    scores = {name: value for name, value in done.metrics.items() if not name.endswith("/collapsed")}
    assert scores == pytest.approx(
        {name: value for name, value in again.metrics.items() if not name.endswith("/collapsed")}, abs=1e-4
    )
    assert all((glue.output / task.name / "distilkit.json").is_file() for task in GLUE)
    stsb = CLASSIFIER.from_pretrained(glue.output / "stsb").config
    assert (stsb.num_labels, stsb.problem_type) == (1, "regression")
    assert json.loads((glue.output / "mrpc" / "distilkit.json").read_text())[-1]["config"]["lr"] == 3e-3  # as given


def test_glue_goes_on_without_repeating_finished_tasks(glue: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption in the third of nine tasks, --resume trains the third and later ones only."""
    run, ran = finetune.train_seed, []

    def interrupted(inputs: TrainingInputs, one: FinetuneOptions) -> Any:
        ran.append(inputs.task.name)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return run(inputs, one)

    monkeypatch.setattr(finetune, "train_seed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(glue)
    done = finetune.finetune(replace(glue, resume=True))
    assert ran == ["cola", "sst2", "mrpc", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    assert {"glue/average", "glue/average_without_wnli"} <= set(done.metrics)


def test_a_task_that_diverges_does_not_stop_the_others(
    glue: FinetuneOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other eight are trained. --resume with a lower learning rate trains the ninth and computes the averages."""
    run, ran = finetune.train_seed, []

    def diverging(inputs: TrainingInputs, one: FinetuneOptions) -> Any:
        ran.append(inputs.task.name)
        high = inputs.task.name == "mrpc" and one.lr != 1e-3
        return run(inputs, replace(one, lr=1e30, steps=3, log_every=1) if high else one)

    monkeypatch.setattr(finetune, "train_seed", diverging)
    with pytest.raises(DistilkitError, match=r"mrpc diverged.*--lr.*--resume"):
        finetune.finetune(glue)
    assert "warning: mrpc diverged" in capsys.readouterr().err
    assert len(ran) == 9
    assert not (glue.output / "distilkit.json").exists()
    done = finetune.finetune(replace(glue, resume=True, lr=1e-3))
    assert ran[9:] == ["mrpc"]
    assert "glue/average" in done.metrics
    rates = {task: json.loads((glue.output / task / "distilkit.json").read_text())[-1]["config"]["lr"] for task in ran}
    assert {task: rate for task, rate in rates.items() if rate != 3e-3} == {"mrpc": 1e-3}


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"temperature": 9.0}, "--temperature"),
        ({"alpha_task": 0.0}, "--alpha-task"),
        ({"layer_map": (1, 1)}, "--layer"),
    ],
)
def test_options_for_a_teacher_need_one(options: FinetuneOptions, changes: dict[str, Any], flag: str) -> None:
    """Without a teacher they would have no effect, but they would appear in the record."""
    with pytest.raises(DistilkitError, match=f"{flag}.*--teacher"):
        finetune.finetune(replace(options, **changes))


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[torch.Tensor]:
    """Make evaluations return these accuracies; return a list that receives the head's weights at each evaluation."""
    given, seen = iter(scores), []

    def score(model: Any, *_: object, **__: object) -> dict[str, float]:
        seen.append(model.classifier.weight.detach().clone())
        return {"sst2/accuracy": next(given)}

    monkeypatch.setattr(finetune, "score", score)
    return seen


@pytest.mark.parametrize(("keep", "kept"), [("best", 1), ("last", 2)])
def test_keeps_the_best_evaluations_weights(
    options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch, keep: Any, kept: int
) -> None:
    """Of three evaluations in 12 updates, --keep selects the weights that are saved and the score that is reported."""
    seen = scripted(monkeypatch, [0.5, 0.9, 0.7])
    done = finetune.finetune(replace(options, steps=12, evaluate_every=4, keep=keep))
    assert done.metrics["sst2/accuracy"] == [0.5, 0.9, 0.7][kept]
    assert torch.equal(CLASSIFIER.from_pretrained(options.output).classifier.weight, seen[kept])
    evaluations = [line for line in read_log(options.output) if "sst2/accuracy" in line]
    assert [(line["step"], line["sst2/accuracy"]) for line in evaluations] == [(4, 0.5), (8, 0.9), (12, 0.7)]


def test_patience_ends_a_run(options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """--patience 2 ends a run two evaluations after its last new best; an equal one is kept. An epoch is 4 updates."""
    scripted(monkeypatch, [0.6, 0.5, 0.6, 0.9])
    done = finetune.finetune(replace(options, steps=40, patience=2))
    assert (done.metrics["updates"], done.metrics["kept_evaluation"]) == (12, 3)


def test_resume_keeps_the_best_of_before(options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A best evaluation from before the interruption is still kept after it."""
    seen, forward, calls = scripted(monkeypatch, [0.9, 0.1, 0.2]), TaskLoss.forward, iter(range(100))

    def failing(self: TaskLoss, *given: Any) -> dict[str, torch.Tensor]:
        if next(calls) == 5:
            raise DistilkitError("power cut")
        return forward(self, *given)

    monkeypatch.setattr(TaskLoss, "forward", failing)
    short = replace(options, steps=12, evaluate_every=4, checkpoint_every=4)
    with pytest.raises(DistilkitError, match="power cut"):
        finetune.finetune(short)
    done = finetune.finetune(replace(short, resume=True))
    assert (done.metrics["sst2/accuracy"], len(seen)) == (0.9, 3)
    assert torch.equal(CLASSIFIER.from_pretrained(options.output).classifier.weight, seen[0])


def test_nothing_is_chosen_by_a_test_split(options: FinetuneOptions, prose: list[str], tmp_path: Path) -> None:
    """If only a test split is scored, the last weights are kept. With a validation split the best are."""
    rows = [{"text": row["sentence"], "label": row["label"]} for row in easy_rows(prose)]
    data = write_rows(tmp_path / "imdb" / "train.jsonl", rows)
    write_rows(data / "test.jsonl", rows[:8])
    done = finetune.finetune(replace(options, task="imdb", data=data))
    assert (done.config["keep"], done.metrics["kept_evaluation"]) == ("last", 1)
    write_rows(data / "validation.jsonl", rows[:8])
    assert finetune.complete_options(TASKS["imdb"], replace(options, task="imdb", data=data)).keep == "best"


def test_seeds_that_diverge_or_collapse_are_named(
    options: FinetuneOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed diverges and another predicts a single label. The remaining seed is trained, and both are named."""
    run = finetune.train_seed

    def diverging(inputs: TrainingInputs, one: FinetuneOptions) -> Any:
        return run(inputs, replace(one, lr={1: 1e30, 2: 1.0, 3: 3e-3}[one.seed]))

    monkeypatch.setattr(finetune, "train_seed", diverging)
    done = finetune.finetune(replace(options, steps=40, seeds=3, seed=1, log_every=1))
    assert {name for name in done.metrics if name.startswith("seed-")} == {"seed-1/diverged", "seed-2/collapsed"}
    assert done.metrics["sst2/accuracy/min"] == 0.5  # of the collapsed run: half the rows have either label
    assert done.metrics["sst2/accuracy/max"] == 1.0
    stderr = capsys.readouterr().err
    assert "warning: sst2 with seed 1 diverged" in stderr
    assert "warning: sst2 with seed 2 learned nothing" in stderr
    assert not list(options.output.glob("seed-*"))


def test_seeds_that_all_diverge_are_an_error(options: FinetuneOptions) -> None:
    """If all seeds diverge, nothing is written."""
    with pytest.raises(DistilkitError, match="sst2: lower --lr"):
        finetune.finetune(replace(options, lr=1e30, seeds=2, log_every=1))
    assert not options.output.exists()


def test_teacher_is_neither_trained_nor_saved(
    tokenizer: PreTrainedTokenizerFast, make_checkpoint: Callable[..., Path]
) -> None:
    """The teacher moves to the given device, but it is not among the parameters and stays in evaluation mode."""
    student, expert = (CLASSIFIER.from_pretrained(make_checkpoint("bert", 1, CLASSIFIER, seed=seed)) for seed in (0, 1))
    objective = TaskLoss(student, "classification", ("input_ids",), teacher=expert).train()
    assert {id(parameter) for parameter in objective.parameters()} == {
        id(parameter) for parameter in student.parameters()
    }
    assert not expert.training
    objective.place_teacher(torch.device("cpu"), torch.float64, whole=True)
    assert next(expert.parameters()).dtype == torch.float64
