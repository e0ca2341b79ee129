"""Fine-tuning: what is learnt, what is written, and what --seeds, --teacher and --resume do."""

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
from distilkit.distillation.task_objective import TaskLoss
from distilkit.errors import DistilkitError
from distilkit.evaluation import scoring
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.record import read_biography
from distilkit.tasks.catalogue import GLUE, TASKS

CLASSIFIER = AutoModelForSequenceClassification


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def sentences(prose: list[str], names: tuple[object, object] = (0, 1)) -> list[dict[str, Any]]:
    """Rows that are easy to tell apart: the label is said in the words."""
    words = ("return the value", "raise an error if")
    return [{"sentence": f"{words[n % 2]} {prose[n][:20]}", "label": names[n % 2]} for n in range(32)]


def journal(directory: Path) -> list[dict[str, float]]:
    """Read the lines of train.jsonl."""
    return [json.loads(line) for line in (directory / "train.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sst2(tmp_path_factory: pytest.TempPathFactory, prose: list[str]) -> Path:
    """A folder with an easy SST-2."""
    folder = tmp_path_factory.mktemp("sst2")
    write_rows(folder / "train.jsonl", sentences(prose))
    return write_rows(folder / "validation.jsonl", sentences(prose)[:16])


@pytest.fixture
def config(teacher: Path, sst2: Path, tmp_path: Path) -> FinetuneOptions:
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


def test_learns_and_writes_a_checkpoint(config: FinetuneOptions) -> None:
    """An easy task is learnt, and the output is a checkpoint with named labels that scores what was reported."""
    done = finetune.finetune(replace(config, steps=60))
    assert done.metrics["sst2/accuracy"] == 1.0
    assert done.metrics["updates"] == 60
    assert [entry.to_json() for entry in read_biography(config.output)] == [done.to_json()]
    model, tokenizer = CLASSIFIER.from_pretrained(config.output), AutoTokenizer.from_pretrained(config.output)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert len(tokenizer) == model.config.vocab_size
    again = evaluate.evaluate(EvalOptions(models=(str(config.output),), task="sst2", data=config.data, max_length=32))
    assert again.metrics["sst2/accuracy"] == done.metrics["sst2/accuracy"]
    assert not list(config.output.glob("checkpoint-*"))


def test_custom_labels_are_kept(config: FinetuneOptions, prose: list[str], tmp_path: Path) -> None:
    """A custom task's strings become the model's labels, so that eval needs no list of them."""
    data = write_rows(tmp_path / "mine" / "train.jsonl", sentences(prose, ("spam", "ham")))
    write_rows(data / "validation.jsonl", sentences(prose, ("spam", "ham")))
    custom = {"task": "custom", "data": data, "text": ("sentence",), "label": "label"}
    done = finetune.finetune(replace(config, steps=60, **custom))
    assert CLASSIFIER.from_pretrained(config.output).config.id2label == {0: "ham", 1: "spam"}
    again = evaluate.evaluate(EvalOptions(models=(str(config.output),), max_length=32, **custom))
    assert again.metrics["custom/accuracy"] == done.metrics["custom/accuracy"] == 1.0


def test_seeds_keep_the_median_run(config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are medians with their range, the kept weights are the median run's, and nothing else is left."""
    scores, kept = iter([0.9, 0.1, 0.5]), {}

    def score(model: Any, *_: object, **__: object) -> dict[str, float]:
        kept[value := next(scores)] = model.classifier.weight.detach().clone()
        return {"sst2/accuracy": value}

    monkeypatch.setattr(finetune, "score", score)
    done = finetune.finetune(replace(config, steps=2, seeds=3, seed=7))
    assert [done.metrics[f"sst2/accuracy{end}"] for end in ("", "/min", "/max")] == [0.5, 0.1, 0.9]
    assert torch.equal(CLASSIFIER.from_pretrained(config.output).classifier.weight, kept[0.5])
    assert not torch.equal(kept[0.1], kept[0.9])
    assert not list(config.output.glob("seed-*"))
    assert [entry.command for entry in read_biography(config.output)] == ["finetune"]


def test_seeds_resume_skips_finished_runs(config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption in the second of two seeds, --resume makes only the second, and refuses other options."""
    run, ran = finetune.run, []

    def interrupted(job: finetune.Job, one: FinetuneOptions) -> Any:
        ran.append(one.seed)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run(job, one)

    monkeypatch.setattr(finetune, "run", interrupted)
    many = replace(config, steps=2, seeds=2, seed=1)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(many)
    with pytest.raises(DistilkitError, match=r"--lr was 0.003 .* now 0.1: --resume needs the same"):
        finetune.finetune(replace(many, resume=True, lr=0.1))
    with pytest.raises(DistilkitError, match=r"has seed-.*: --resume needs the same --seed and --seeds"):
        finetune.finetune(replace(many, resume=True, seeds=1))
    done = finetune.finetune(replace(many, resume=True))
    assert ran == [1, 2, 2]
    assert {"sst2/accuracy", "sst2/accuracy/min", "sst2/accuracy/max"} <= set(done.metrics)


def test_a_signal_in_a_seeds_last_evaluation_stops_the_next(
    config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM comes once: the seed that it finds finished is kept, the next one ends at its first update."""
    score, scored = scoring.score, []

    def signalled(*args: Any, **options: Any) -> dict[str, float]:
        scored.append(args)
        if len(scored) == 1:
            signal.raise_signal(signal.SIGTERM)
        return score(*args, **options)

    monkeypatch.setattr(finetune, "score", signalled)
    many = replace(config, steps=2, seeds=2, seed=1, keep="last")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(many)
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_biography(config.output / "seed-1")
    assert [path.name for path in (config.output / "seed-2").glob("checkpoint-*")] == ["checkpoint-00000001"]
    assert finetune.finetune(replace(many, resume=True)).metrics["updates"] == 2


def test_resume_gives_the_uninterrupted_run(config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that failed after a checkpoint goes on to the very weights of one that did not."""
    straight = replace(config, output=config.output.with_name("straight"))
    finetune.finetune(straight)
    forward, calls = TaskLoss.forward, iter(range(100))

    def failing(self: TaskLoss, *given: Any) -> dict[str, torch.Tensor]:
        if next(calls) == 7:
            raise DistilkitError("power cut")
        return forward(self, *given)

    monkeypatch.setattr(TaskLoss, "forward", failing)
    with pytest.raises(DistilkitError, match="power cut"):
        finetune.finetune(replace(config, checkpoint_every=5))
    assert (config.output / "checkpoint-00000005").is_dir()
    finetune.finetune(replace(config, checkpoint_every=5, resume=True))
    assert not [*config.output.glob("checkpoint-*"), *config.output.glob("run.json")]
    one, other = (CLASSIFIER.from_pretrained(path).state_dict() for path in (straight.output, config.output))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_failed_run_leaves_nothing(config: FinetuneOptions) -> None:
    """Validation rows are read before anything is trained; without them no output directory stays behind."""
    data = config.output.with_name("half")
    write_rows(data / "train.jsonl", [{"sentence": "a", "label": 1}])
    with pytest.raises(DistilkitError, match="no validation"):
        finetune.finetune(replace(config, data=data))
    assert not config.output.exists()


def test_learns_from_a_teacher_that_names_labels_in_another_order(
    config: FinetuneOptions, make_checkpoint: Callable[..., Path]
) -> None:
    """With --alpha-task 0 the student takes on the teacher's answers, label by label."""
    good = finetune.finetune(replace(config, steps=60, output=config.output.with_name("good")))
    assert good.metrics["sst2/accuracy"] == 1.0
    expert = CLASSIFIER.from_pretrained(config.output.with_name("good"))
    with torch.no_grad():  # the same model with its two outputs swapped
        expert.classifier.weight.copy_(expert.classifier.weight.flip(0))
        expert.classifier.bias.copy_(expert.classifier.bias.flip(0))
    expert.config.id2label = {0: "positive", 1: "negative"}
    expert.save_pretrained(config.output.with_name("good"))
    learner = replace(config, steps=60, teacher=str(config.output.with_name("good")), alpha_task=0.0, alpha_ce=1.0)
    assert finetune.finetune(learner).metrics["sst2/accuracy"] == 1.0
    line = next(line for line in reversed(journal(config.output)) if "loss" in line)
    assert line["loss"] == pytest.approx(line["ce"])


def test_refuses_teachers_of_other_labels(config: FinetuneOptions, make_checkpoint: Callable[..., Path]) -> None:
    """A teacher with other labels is refused by name before anything is trained."""
    other = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "joy", 1: "fear"})
    with pytest.raises(DistilkitError, match="predicts joy, fear, but sst2 has negative, positive"):
        finetune.finetune(replace(config, teacher=str(other)))
    assert not config.output.exists()


def test_squad_with_a_teacher(
    config: FinetuneOptions, make_checkpoint: Callable[..., Path], prose: list[str], tmp_path: Path
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
    done = finetune.finetune(replace(config, teacher=str(expert), **options))
    assert 0 <= done.metrics["squad/f1"] <= 100
    AutoModelForQuestionAnswering.from_pretrained(config.output)


@pytest.fixture
def glue(config: FinetuneOptions, make_checkpoint: Callable[..., Path], tmp_path: Path) -> FinetuneOptions:
    """An update on each of GLUE's tasks, of a one-layer model and made-up rows."""
    for task in GLUE:
        rows = [dict.fromkeys(task.text, f"the value {n}") | {"label": n % max(2, len(task.labels))} for n in range(6)]
        write_rows(tmp_path / "glue" / task.name / "train.jsonl", rows)
        write_rows(tmp_path / "glue" / task.name / f"{task.splits[0][1]}.jsonl", rows)
    model = str(make_checkpoint("bert", 1))
    return replace(config, task="glue", data=tmp_path / "glue", steps=1, batch_size=2, model=model)


def test_glue_trains_nine(glue: FinetuneOptions) -> None:
    """`--task glue` makes nine checkpoints and a record with the averages, which eval finds again."""
    done = finetune.finetune(glue)
    again = evaluate.evaluate(EvalOptions(models=(str(glue.output),), task="glue", data=glue.data, max_length=32))
    scores = {name: value for name, value in done.metrics.items() if not name.endswith("/collapsed")}
    assert scores == pytest.approx(again.metrics, abs=1e-4)
    assert all((glue.output / task.name / "distilkit.json").is_file() for task in GLUE)
    stsb = CLASSIFIER.from_pretrained(glue.output / "stsb").config
    assert (stsb.num_labels, stsb.problem_type) == (1, "regression")
    assert json.loads((glue.output / "mrpc" / "distilkit.json").read_text())[-1]["config"]["lr"] == 3e-3  # as given


def test_glue_goes_on_without_repeating_finished_tasks(glue: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the third of nine tasks, --resume trains the third and those after it, and no task twice."""
    run, ran = finetune.run, []

    def interrupted(job: Any, one: FinetuneOptions) -> Any:
        ran.append(job.task.name)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return run(job, one)

    monkeypatch.setattr(finetune, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(glue)
    done = finetune.finetune(replace(glue, resume=True))
    assert ran == ["cola", "sst2", "mrpc", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    assert {"glue/average", "glue/average_without_wnli"} <= set(done.metrics)


def test_a_task_that_diverges_does_not_stop_the_others(
    glue: FinetuneOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other eight are made; --resume with a lower rate makes the ninth alone, and the averages."""
    run, ran = finetune.run, []

    def troubled(job: Any, one: FinetuneOptions) -> Any:
        ran.append(job.task.name)
        high = job.task.name == "mrpc" and one.lr != 1e-3
        return run(job, replace(one, lr=1e30, steps=3, log_every=1) if high else one)

    monkeypatch.setattr(finetune, "run", troubled)
    with pytest.raises(DistilkitError, match="mrpc diverged: lower --lr and continue with --resume"):
        finetune.finetune(glue)
    assert "warning: mrpc diverged: the loss is nan at update" in capsys.readouterr().err
    assert len(ran) == 9
    assert not (glue.output / "distilkit.json").exists()
    done = finetune.finetune(replace(glue, resume=True, lr=1e-3))
    assert ran[9:] == ["mrpc"]
    assert "glue/average" in done.metrics
    rates = {task: json.loads((glue.output / task / "distilkit.json").read_text())[-1]["config"]["lr"] for task in ran}
    assert {task: rate for task, rate in rates.items() if rate != 3e-3} == {"mrpc": 1e-3}


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"temperature": 9.0}, "--temperature"),
        ({"alpha_task": 0.0}, "--alpha-task"),
        ({"layer_map": (1, 1)}, "--layer"),
    ],
)
def test_what_is_about_a_teacher_needs_one(config: FinetuneOptions, options: dict[str, Any], flag: str) -> None:
    """It would change nothing, and the record would say that it was so made."""
    with pytest.raises(DistilkitError, match=f"{flag}.* needs a teacher"):
        finetune.finetune(replace(config, **options))


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[torch.Tensor]:
    """Let evaluations give these accuracies; returns the head's weights at each."""
    given, seen = iter(scores), []

    def score(model: Any, *_: object, **__: object) -> dict[str, float]:
        seen.append(model.classifier.weight.detach().clone())
        return {"sst2/accuracy": next(given)}

    monkeypatch.setattr(finetune, "score", score)
    return seen


@pytest.mark.parametrize(("keep", "kept"), [("best", 1), ("last", 2)])
def test_keeps_the_best_evaluations_weights(
    config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch, keep: Any, kept: int
) -> None:
    """Scored every 4 of 12 updates, the weights with the best score are saved, and theirs is the score reported."""
    seen = scripted(monkeypatch, [0.5, 0.9, 0.7])
    done = finetune.finetune(replace(config, steps=12, evaluate_every=4, keep=keep))
    assert done.metrics["sst2/accuracy"] == [0.5, 0.9, 0.7][kept]
    assert torch.equal(CLASSIFIER.from_pretrained(config.output).classifier.weight, seen[kept])
    readings = [line for line in journal(config.output) if "sst2/accuracy" in line]
    assert [(line["step"], line["sst2/accuracy"]) for line in readings] == [(4, 0.5), (8, 0.9), (12, 0.7)]


def test_patience_ends_a_run(config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --patience 2 an epoch each of 4 updates is scored until two in turn are no better than the best."""
    scripted(monkeypatch, [0.6, 0.5, 0.6, 0.9])
    done = finetune.finetune(replace(config, steps=40, patience=2))
    assert (done.metrics["updates"], done.metrics["kept_evaluation"]) == (12, 1)


def test_resume_keeps_the_best_of_before(config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A best evaluation before the interruption is still the one that is kept after it."""
    seen, forward, calls = scripted(monkeypatch, [0.9, 0.1, 0.2]), TaskLoss.forward, iter(range(100))

    def failing(self: TaskLoss, *given: Any) -> dict[str, torch.Tensor]:
        if next(calls) == 5:
            raise DistilkitError("power cut")
        return forward(self, *given)

    monkeypatch.setattr(TaskLoss, "forward", failing)
    short = replace(config, steps=12, evaluate_every=4, checkpoint_every=4)
    with pytest.raises(DistilkitError, match="power cut"):
        finetune.finetune(short)
    done = finetune.finetune(replace(short, resume=True))
    assert (done.metrics["sst2/accuracy"], len(seen)) == (0.9, 3)
    assert torch.equal(CLASSIFIER.from_pretrained(config.output).classifier.weight, seen[0])


def test_nothing_is_chosen_by_a_test_split(config: FinetuneOptions, prose: list[str], tmp_path: Path) -> None:
    """Where only a test split is scored, the last weights are kept, after one evaluation; else the best."""
    rows = [{"text": row["sentence"], "label": row["label"]} for row in sentences(prose)]
    data = write_rows(tmp_path / "imdb" / "train.jsonl", rows)
    write_rows(data / "test.jsonl", rows[:8])
    done = finetune.finetune(replace(config, task="imdb", data=data))
    assert (done.config["keep"], done.metrics["kept_evaluation"]) == ("last", 1)
    write_rows(data / "validation.jsonl", rows[:8])
    assert finetune.settle(TASKS["imdb"], replace(config, task="imdb", data=data)).keep == "best"


def test_seeds_that_diverge_or_collapse_are_named(
    config: FinetuneOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed's loss is no number, another's answers are all the same: the others go on, and both are named."""
    run = finetune.run

    def troubled(job: Any, one: FinetuneOptions) -> Any:
        return run(job, replace(one, lr={1: 1e30, 2: 1.0, 3: 3e-3}[one.seed]))

    monkeypatch.setattr(finetune, "run", troubled)
    done = finetune.finetune(replace(config, steps=40, seeds=3, seed=1, log_every=1))
    assert {name for name in done.metrics if name.startswith("seed-")} == {"seed-1/diverged", "seed-2/collapsed"}
    assert done.metrics["sst2/accuracy/min"] == 0.5  # of the collapsed run: half the rows have either label
    assert done.metrics["sst2/accuracy/max"] == 1.0
    said = capsys.readouterr().err
    assert "warning: sst2 with seed 1 diverged: the loss is" in said
    assert "warning: sst2 with seed 2 collapsed: it predicts the same label for every row" in said
    assert not list(config.output.glob("seed-*"))


def test_seeds_that_all_diverge_are_an_error(config: FinetuneOptions) -> None:
    """Where no seed came to anything, nothing is written."""
    with pytest.raises(DistilkitError, match="all 2 seeds diverged on sst2: lower --lr"):
        finetune.finetune(replace(config, lr=1e30, seeds=2, log_every=1))
    assert not config.output.exists()


def test_teacher_is_neither_trained_nor_saved(
    tokenizer: PreTrainedTokenizerFast, make_checkpoint: Callable[..., Path]
) -> None:
    """The teacher goes where it is put, but is no part of the parameters, and stays in evaluation mode."""
    student, expert = (CLASSIFIER.from_pretrained(make_checkpoint("bert", 1, CLASSIFIER, seed=seed)) for seed in (0, 1))
    objective = TaskLoss(student, "classification", ("input_ids",), teacher=expert).train()
    assert {id(parameter) for parameter in objective.parameters()} == {
        id(parameter) for parameter in student.parameters()
    }
    assert not expert.training
    objective.place_teacher(torch.device("cpu"), torch.float64, whole=True)
    assert next(expert.parameters()).dtype == torch.float64
