"""eval, compared with predictions made row by row by calling the model; prediction files; refusals."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from typer.testing import CliRunner, Result

from distilkit.cli import app
from distilkit.commands import evaluate
from distilkit.errors import DistilkitError
from distilkit.evaluation import metrics, scoring
from distilkit.evaluation.scoring import score_checkpoint
from distilkit.options.evaluate import EvalOptions
from distilkit.tasks import catalogue
from distilkit.tasks.catalogue import GLUE, TASKS
from distilkit.tasks.settings import with_task_defaults

CLASSIFIER = AutoModelForSequenceClassification


def run(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def write_rows(folder: Path, name: str, rows: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pairs(prose: list[str]) -> list[dict[str, object]]:
    """Return twenty rows of text pairs of very different lengths."""
    return [
        {"sentence1": prose[n], "sentence2": prose[-n][: 5 * n + 3], "label": int(n % 3 == 0)} for n in range(1, 21)
    ]


def scores_of(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics without the marks of models that give one label to every row."""
    return {name: value for name, value in metrics.items() if not name.endswith("/collapsed")}


def compute_logits(directory: Path, texts: list[tuple[str, ...]], family: str) -> torch.Tensor:
    """Return a checkpoint's logits (N, C), computed row by row without padding."""
    model, tokenizer = CLASSIFIER.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
    encoded = [
        tokenizer(
            *text, truncation=True, max_length=64, return_tensors="pt", return_token_type_ids=family != "distilbert"
        )
        for text in texts
    ]
    with torch.no_grad():
        return torch.cat([model(**inputs).logits for inputs in encoded])


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_scores_are_those_of_single_rows(
    make_checkpoint: Callable[..., Path], tmp_path: Path, pairs: list[dict[str, object]], family: str
) -> None:
    """Padded batches, sorted by length, give the scores of single rows for each architecture."""
    directory = make_checkpoint(family, 2, CLASSIFIER, seed=3)
    data = write_rows(tmp_path, "validation.jsonl", pairs)
    logits = compute_logits(directory, [(str(row["sentence1"]), str(row["sentence2"])) for row in pairs], family)
    guesses, labels = logits.argmax(dim=1).tolist(), [row["label"] for row in pairs]
    options = EvalOptions(models=(str(directory),), task="mrpc", data=data, batch_size=3, max_length=64)
    done = evaluate.evaluate(options)
    assert done.command == "eval"
    assert scores_of(done.metrics) == pytest.approx(
        {"mrpc/f1": f1_score(labels, guesses), "mrpc/accuracy": accuracy_score(labels, guesses)}
    )


def test_outputs_are_matched_by_name(
    make_checkpoint: Callable[..., Path], tmp_path: Path, pairs: list[dict[str, object]]
) -> None:
    """With the label names in the other order, the accuracy is the complement."""
    data = write_rows(tmp_path, "validation.jsonl", pairs)
    scores = []
    for names in (("not_equivalent", "equivalent"), ("EQUIVALENT", "not equivalent")):
        directory = make_checkpoint("bert", 1, CLASSIFIER, seed=1, id2label=dict(enumerate(names)))
        options = EvalOptions(models=(str(directory),), task="mrpc", data=data)
        scores.append(evaluate.evaluate(options).metrics["mrpc/accuracy"])
    assert scores[0] == pytest.approx(1 - scores[1])


def test_several_models_and_retention(
    make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics begin with the model's position. Retention is relative to the teacher, which is scored once."""
    score, scored = score_checkpoint, []
    monkeypatch.setattr(evaluate, "score_checkpoint", lambda name, *rest: (scored.append(name), score(name, *rest))[1])
    directories = [make_checkpoint("bert", 1, CLASSIFIER, seed=seed) for seed in (0, 1)]
    rows = []
    for n, text in enumerate(prose[:20]):
        guess = int(compute_logits(directories[0], [(text,)], "bert").argmax())
        rows.append({"sentence": text, "label": guess if n % 4 else 1 - guess})  # the first model is right in 15 of 20
    data = write_rows(tmp_path, "validation.jsonl", rows)
    options = {"task": "sst2", "data": data, "max_length": 64}
    found = evaluate.evaluate(
        EvalOptions(models=tuple(map(str, directories)), against=str(directories[0]), **options)
    ).metrics
    assert scored == list(map(str, directories))  # the teacher is the first of them
    assert found["0/sst2/accuracy"] == pytest.approx(0.75)
    assert found["0/retention/sst2"] == pytest.approx(1.0)
    assert found["1/retention/sst2"] == pytest.approx(found["1/sst2/accuracy"] / 0.75)
    alone = evaluate.evaluate(EvalOptions(models=(str(directories[1]),), **options)).metrics
    assert scores_of(alone) == {"sst2/accuracy": found["1/sst2/accuracy"]}


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_regression(
    make_checkpoint: Callable[..., Path], tmp_path: Path, pairs: list[dict[str, object]], family: str
) -> None:
    """STS-B's prediction is the model's only output. Labels made from it correlate perfectly at any scale."""
    directory = make_checkpoint(family, 2, CLASSIFIER, num_labels=1)
    numbers = compute_logits(directory, [(str(row["sentence1"]), str(row["sentence2"])) for row in pairs], family)[:, 0]
    scaled = 5 * (numbers - numbers.min()) / (numbers.max() - numbers.min())
    rows = [row | {"label": float(number)} for row, number in zip(pairs, scaled.clamp(0, 5), strict=True)]
    data = write_rows(tmp_path, "validation.jsonl", rows)
    options = EvalOptions(models=(str(directory),), task="stsb", data=data, batch_size=4, max_length=64)
    found = scores_of(evaluate.evaluate(options).metrics)
    assert found == pytest.approx({"stsb/pearson": 1.0, "stsb/spearmanr": 1.0}, abs=1e-4)


def test_custom_labels_come_from_the_model(
    make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str]
) -> None:
    """A custom task's strings are matched to the model's label names. An unknown one is refused with its row."""
    directory = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "ham", 1: "spam"})
    names = ("ham", "spam")
    rows = [
        {"mail": text, "kind": names[int(compute_logits(directory, [(text,)], "bert").argmax())]} for text in prose[:9]
    ]
    data = write_rows(tmp_path, "validation.jsonl", rows)
    options = {"task": "custom", "text": ("mail",), "label": "kind", "data": data, "max_length": 64}
    assert evaluate.evaluate(EvalOptions(models=(str(directory),), **options)).metrics["custom/accuracy"] == 1.0
    write_rows(tmp_path, "validation.jsonl", [*rows, {"mail": "x", "kind": "eggs"}])
    with pytest.raises(DistilkitError, match=r"kind 'eggs' in row 10"):
        evaluate.evaluate(EvalOptions(models=(str(directory),), **options))


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_squad(make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str], family: str) -> None:
    """The model's best answer, found by trying every span of the whole context, scores 100."""
    directory = make_checkpoint(family, 2, AutoModelForQuestionAnswering, seed=5)
    model, tokenizer = (
        AutoModelForQuestionAnswering.from_pretrained(directory).eval(),
        AutoTokenizer.from_pretrained(directory),
    )
    rows = []
    for n, context in enumerate(text for text in prose if 10 < len(tokenizer(text)["input_ids"]) < 60):
        segments = {"return_token_type_ids": family == "bert"}
        inputs = tokenizer("what is it?", context, return_tensors="pt", return_offsets_mapping=True, **segments)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            output = model(**inputs)
        places = range(len(tokenizer("what is it?")["input_ids"]), len(offsets) - 1)
        spans = [(first, last) for first in places for last in places if 0 <= last - first < 5]
        first, last = max(
            spans, key=lambda span: float(output.start_logits[0, span[0]] + output.end_logits[0, span[1]])
        )
        start, end = offsets[first][0], offsets[last][1]
        answers = {"text": [context[start:end]], "answer_start": [start]}
        if metrics.normalize(
            context[start:end]
        ):  # normalisation removes brackets and articles, and an empty answer cannot be scored
            rows.append({"id": str(n), "question": "what is it?", "context": context, "answers": answers})
    data = write_rows(tmp_path, "validation.jsonl", rows[:8])
    options = {"data": data, "max_length": 90, "stride": 8, "n_best": 90, "max_answer_length": 5, "batch_size": 3}
    done = evaluate.evaluate(EvalOptions(models=(str(directory),), task="squad", **options))
    assert done.metrics == {"squad/exact_match": 100.0, "squad/f1": 100.0}
    never = EvalOptions(models=(str(directory),), task="squad_v2", null_threshold=-1e6, **options)
    assert evaluate.evaluate(never).metrics["squad_v2/exact_match"] == 0.0


def test_glue_average_counts_two_metrics_once() -> None:
    """A task with two metrics counts as their mean, and MNLI as its matched rows. One average excludes WNLI."""
    scores = {f"{task.name}/{metric}": 0.5 for task in GLUE for metric in task.metrics}
    scores |= {"mrpc/f1": 0.9, "mrpc/accuracy": 0.7, "wnli/accuracy": 0.1, "mnli_mismatched/accuracy": 0.0}
    averages = catalogue.averages(scores, GLUE)
    assert averages == pytest.approx(
        {"glue/average": (7 * 0.5 + 0.8 + 0.1) / 9, "glue/average_without_wnli": (7 * 0.5 + 0.8) / 8}
    )


def test_glue_reads_a_directory_per_task(
    make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str]
) -> None:
    """`--task glue` scores MODEL/<task> on DIR/<task> for all nine, and averages them."""
    for task in GLUE:
        names = {"num_labels": max(1, len(task.labels))}
        make_checkpoint("bert", 1, CLASSIFIER, **names).rename(tmp_path / task.name)
        rows = [dict.fromkeys(task.text, text) | {"label": n % names["num_labels"]} for n, text in enumerate(prose[:4])]
        write_rows(tmp_path / "data" / task.name, f"{task.splits[0][1]}.jsonl", rows)
    found = evaluate.evaluate(
        EvalOptions(models=(str(tmp_path),), task="glue", data=tmp_path / "data", max_length=64)
    ).metrics
    expected = {f"{task.name}/{metric}" for task in GLUE for metric in task.metrics}
    assert set(scores_of(found)) == expected | {"glue/average", "glue/average_without_wnli"}


def test_refuses_a_diverged_model(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Outputs that are not finite are an error that names the model."""
    directory = make_checkpoint("bert", 1, CLASSIFIER)
    model = CLASSIFIER.from_pretrained(directory)
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    model.save_pretrained(directory)
    data = write_rows(tmp_path, "validation.jsonl", [{"sentence": "a value", "label": 1}])
    with pytest.raises(DistilkitError, match=str(directory)):
        evaluate.evaluate(EvalOptions(models=(str(directory),), task="sst2", data=data))


def test_refuses_a_model_without_a_head(teacher: Path, tmp_path: Path) -> None:
    """A masked-LM checkpoint cannot be scored. The error names the command that trains a head."""
    data = write_rows(tmp_path, "validation.jsonl", [{"sentence": "a value", "label": 1}])
    with pytest.raises(DistilkitError, match=r"no trained sequence-classification head.*distilkit finetune"):
        evaluate.evaluate(EvalOptions(models=(str(teacher),), task="sst2", data=data))


def test_rows_are_a_dataset_of_any_length(make_checkpoint: Callable[..., Path]) -> None:
    """An incomplete last batch is scored too."""
    directory = make_checkpoint("bert", 1, CLASSIFIER)
    model, tokenizer = CLASSIFIER.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    rows = Dataset.from_dict({"sentence": ["a", "the value", "one"], "label": [0, 0, 0]})
    options = EvalOptions(models=(str(directory),), task="sst2", batch_size=2)
    settings = with_task_defaults(TASKS["sst2"], options)
    scores = scoring.score(model, tokenizer, TASKS["sst2"], {"sst2": rows}, settings)
    guesses = compute_logits(directory, [("a",), ("the value",), ("one",)], "bert").argmax(dim=1)
    assert scores == pytest.approx({"sst2/accuracy": float((guesses == 0).float().mean())})


QUESTIONS = {"1": ["Ann"], "2": [], "3": ["left", "Ann left"]}


@pytest.fixture
def squad_data(tmp_path: Path) -> Path:
    """Write three questions in SQuAD's file format, one of them without an answer."""
    qas = [
        {"id": key, "question": "q?", "answers": [{"text": text, "answer_start": 0} for text in texts]}
        for key, texts in QUESTIONS.items()
    ]
    paragraph = {"context": "Ann left.", "qas": qas}
    document = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [paragraph]}]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev-v2.0.json").write_text(json.dumps(document))
    return tmp_path / "data"


def test_a_prediction_file_is_scored_without_a_model(squad_data: Path, tmp_path: Path) -> None:
    """By hand: "Ann." is right, "x" is wrong because there is no answer, and the missing third counts as wrong."""
    (tmp_path / "p.json").write_text(json.dumps({"1": "Ann.", "2": "x"}))
    (tmp_path / "odds.json").write_text(json.dumps({"1": -1.0, "2": 1.0}))
    words = ["--task", "squad_v2", "--data", squad_data, "--predictions", tmp_path / "p.json"]
    result = run("eval", *words, "--null-odds", tmp_path / "odds.json", "--json", "--require", "best_f1>=90")
    assert json.loads(result.stdout)["metrics"] == pytest.approx(
        {
            "squad_v2/exact_match": 100 / 3,
            "squad_v2/f1": 100 / 3,
            "squad_v2/has_answer_exact_match": 50.0,
            "squad_v2/has_answer_f1": 50.0,
            "squad_v2/no_answer_exact_match": 0.0,
            "squad_v2/no_answer_f1": 0.0,
            "squad_v2/best_exact_match": 200 / 3,
            "squad_v2/best_exact_match_threshold": -1.0,
            "squad_v2/best_f1": 200 / 3,
            "squad_v2/best_f1_threshold": -1.0,
        }
    )
    assert "lacks 1 of 3 questions" in result.stderr
    assert result.exit_code == 3
    assert "gate not met: best_f1>=90" in result.stderr
    words += ["--null-odds", tmp_path / "odds.json", "--null-threshold", "0", "--json"]  # "x" becomes "no answer"
    assert json.loads(run("eval", *words).stdout)["metrics"]["squad_v2/exact_match"] == pytest.approx(200 / 3)


def test_best_threshold_gives_the_best_score(
    make_checkpoint: Callable[..., Path], squad_data: Path, tmp_path: Path
) -> None:
    """Scored again at the best threshold, a model has the best score. Its prediction files score the same."""
    directory = make_checkpoint("bert", 1, AutoModelForQuestionAnswering, seed=5)
    options = {"models": (str(directory),), "task": "squad_v2", "data": squad_data, "stride": 8, "max_length": 60}
    out = tmp_path / "out"
    first = evaluate.evaluate(EvalOptions(null_threshold=1e6, write_predictions=out, **options)).metrics
    threshold = first["squad_v2/best_f1_threshold"]
    again = evaluate.evaluate(EvalOptions(null_threshold=threshold, **options)).metrics
    assert again["squad_v2/f1"] == pytest.approx(first["squad_v2/best_f1"])
    files = {"predictions": out / "predictions.json", "null_odds": out / "null_odds.json"}
    from_files = evaluate.evaluate(EvalOptions(task="squad_v2", data=squad_data, **files)).metrics
    assert scores_of(from_files) == pytest.approx(scores_of(first))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--task", "sst2"], "no MODEL"),
        (["m", "--task", "sst2", "--control", "c"], "give one as --against"),
        (["--task", "sst2", "--predictions", "p.json"], "--predictions requires --task squad"),
        (["m", "--task", "squad", "--predictions", "p.json"], "remove MODEL"),
        (["--task", "squad", "--predictions", "p", "--null-odds", "o"], "--null-odds"),
        (["m", "n", "--task", "sst2", "--write-predictions", "o"], "--write-predictions"),
        (["--task", "squad", "--predictions", "p", "--n-best", "3"], "--n-best"),
        (["--task", "squad_v2", "--predictions", "p", "--null-threshold", "0"], "--null-threshold"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(words: list[str], error: str) -> None:
    """The error is one line that names an option."""
    result = run("eval", *words)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert error in result.stderr


def test_glue_needs_a_model_for_every_task(tmp_path: Path) -> None:
    """A directory without some tasks is refused, because its average would be over other tasks."""
    for name in ("student", "teacher"):
        for task in GLUE[: 9 if name == "student" else 8]:
            (tmp_path / name / task.name).mkdir(parents=True)
    options = EvalOptions(models=(str(tmp_path / "student"),), against=str(tmp_path / "teacher"), task="glue")
    with pytest.raises(DistilkitError, match=r"teacher' has no model for wnli"):
        evaluate.evaluate(options)


def test_compares_with_a_teacher_and_a_control(
    make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str]
) -> None:
    """The table has a column per role, gates apply to the model only, and the seed determines the intervals."""
    student, teacher, control = (make_checkpoint("bert", 1, CLASSIFIER, seed=seed) for seed in (0, 1, 2))
    rows = []
    for n, text in enumerate(prose[:30]):
        guess = int(compute_logits(teacher, [(text,)], "bert").argmax())
        rows.append({"sentence": text, "label": guess if n % 5 else 1 - guess})
    data = write_rows(tmp_path, "validation.jsonl", rows)
    words = [student, "--task", "sst2", "--data", data, "--against", teacher, "--control", control, "--max-length", 64]
    found = json.loads(run("eval", *words, "--json").stdout)["metrics"]
    alone = {
        name: evaluate.evaluate(EvalOptions(models=(str(one),), task="sst2", data=data, max_length=64)).metrics
        for name, one in (("", student), ("teacher/", teacher), ("control/", control))
    }
    scores = {label + name: value for label, one in alone.items() for name, value in scores_of(one).items()}
    assert {name: value for name, value in found.items() if name.endswith("accuracy")} == scores
    assert found["retention/sst2"] == pytest.approx(scores["sst2/accuracy"] / 0.8)
    assert found["difference/sst2/control"] == pytest.approx(scores["sst2/accuracy"] - scores["control/sst2/accuracy"])
    assert found["retention/sst2/low"] <= found["retention/sst2"] <= found["retention/sst2/high"]
    assert json.loads(run("eval", *words, "--json").stdout)["metrics"] == found
    gated = run("eval", *words, "--seed", 7, "--require", "retention>=9", "--require", "teacher/sst2/accuracy>=0.8")
    table = [re.split(r" {2,}", line) for line in gated.stdout.splitlines()]
    names = (student.name, f"teacher: {teacher.name}", f"baseline: {control.name}")
    assert table[0] == ["metric", *names]
    assert next(line[2] for line in table if line[0] == "SST-2 accuracy") == "80.0 %"
    widths = {line[0]: len(line) for line in table}
    compared = ("SST-2 retention", "baseline: SST-2 retention", "SST-2 difference to the teacher")
    assert [widths[name] for name in compared] == [4] * 3
    assert gated.exit_code == 3
    unmet = [line for line in gated.stderr.splitlines() if "gate not met" in line]
    assert len([line for line in unmet if "same label" not in line]) == 1  # an untrained model may be constant
    assert "retention>=9" in unmet[0]


def test_writes_the_leaderboards_files(make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str]) -> None:
    """Each existing test split gives a file of predictions. MNLI's model also predicts AX."""
    names = {"id2label": dict(enumerate(("contradiction", "entailment", "neutral")))}
    directory = make_checkpoint("bert", 1, CLASSIFIER, seed=4, **names)
    rows = [
        {"premise": text, "hypothesis": text[:20], "label": n % 3, "idx": n + 5} for n, text in enumerate(prose[:9])
    ]
    hidden = [row | {"label": -1} for row in rows]
    unlabelled = [{name: value for name, value in row.items() if name != "label"} for row in rows]
    data = write_rows(tmp_path / "glue/mnli", "validation_matched.jsonl", rows)
    write_rows(data, "test_matched.jsonl", hidden)
    write_rows(tmp_path / "glue/ax", "test.jsonl", unlabelled)
    words = [directory, "--task", "mnli", "--data", data, "--max-length", 64, "--write-predictions", tmp_path / "out"]
    result = run("eval", *words)
    assert result.exit_code == 0, result.stderr
    assert "MNLI-mm.tsv is not written" in result.stderr
    guesses = compute_logits(directory, [(str(row["premise"]), str(row["hypothesis"])) for row in rows], "bert").argmax(
        1
    )
    lines = [f"{n + 5}\t{names['id2label'][guess]}\n" for n, guess in enumerate(guesses.tolist())]
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == dict.fromkeys(
        ("MNLI-m.tsv", "AX.tsv"), "".join(["index\tprediction\n", *lines])
    )


def test_writes_other_tasks_predictions_by_name(
    make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A custom task's predictions are written to a file. Errors in paths and models are found before the scoring."""
    directory = make_checkpoint("bert", 1, CLASSIFIER, id2label={0: "ham", 1: "spam"})
    data = write_rows(tmp_path, "validation.jsonl", [{"mail": text, "kind": "ham"} for text in prose[:5]])
    words = [directory, "--task", "custom", "--text", "mail", "--label", "kind", "--data", data, "--max-length", 64]
    assert run("eval", *words, "--write-predictions", tmp_path / "out").exit_code == 0
    guesses = compute_logits(directory, [(text,) for text in prose[:5]], "bert").argmax(1).tolist()
    lines = [f"{n}\t{('ham', 'spam')[guess]}\n" for n, guess in enumerate(guesses)]
    assert (tmp_path / "out/custom.tsv").read_text() == "".join(["index\tprediction\n", *lines])
    refused = run("eval", *words, "--write-predictions", tmp_path / "validation.jsonl")
    assert refused.exit_code == 1
    assert "cannot write --write-predictions" in refused.stderr
    refused = run("eval", *words, "--write-predictions", tmp_path / "out")
    assert "custom.tsv' already exists" in refused.stderr
    number = make_checkpoint("bert", 1, CLASSIFIER, num_labels=1)
    refused = run("eval", *words, "--against", number)
    assert "was trained for classification, but '" in refused.stderr
    assert "for regression" in refused.stderr


def test_an_earlier_eval_is_a_baseline(
    make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metrics stand beside the new ones, and a gate may subtract from them.

    A record of other scores or other rows is refused before anything is scored. `report` reads a record with marks.
    """
    data = write_rows(tmp_path, "validation.jsonl", [{"sentence": text, "label": 1} for text in prose[:9]])
    words = [make_checkpoint("bert", 1, CLASSIFIER, seed=3), "--task", "sst2", "--data", data, "--max-length", 64]
    earlier = json.loads(run("eval", *words, "--json").stdout)
    earlier["metrics"]["sst2/accuracy"] += 0.05
    (tmp_path / "good.json").write_text(json.dumps(earlier))
    gates = {"baseline-0.1": 0, "baseline-0.01": 3, "baseline": 3}
    for gate, code in gates.items():
        done = run(
            "eval", *words, "--baseline", tmp_path / "good.json", "--require", f"sst2/accuracy>={gate}", "--json"
        )
        assert done.exit_code == code, gate
        found = json.loads(done.stdout)["metrics"]
        assert found["baseline/sst2/accuracy"] == pytest.approx(found["sst2/accuracy"] + 0.05)
    (tmp_path / "found").mkdir()
    (tmp_path / "found/eval.json").write_text(json.dumps(earlier))
    assert run("report", tmp_path / "found", "-o", tmp_path / "out").exit_code == 0
    monkeypatch.setattr(evaluate, "score_checkpoint", lambda *_: pytest.fail("scored"))
    write_rows(tmp_path / "other", "validation.jsonl", [{"sentence": text, "label": 0} for text in prose[:9]])
    other = run("eval", *words[:4], tmp_path / "other", "--baseline", tmp_path / "good.json")
    assert (other.exit_code, "was measured on other rows (sst2)" in other.stderr) == (1, True)
    earlier["metrics"] = {"rte/accuracy": 1.0}
    (tmp_path / "good.json").write_text(json.dumps(earlier))
    other = run("eval", *words, "--baseline", tmp_path / "good.json")
    assert (other.exit_code, "has none of these metrics" in other.stderr) == (1, True)


def test_what_was_found_is_named_and_nothing_else(
    make_checkpoint: Callable[..., Path], tmp_path: Path, prose: list[str]
) -> None:
    """The columns of a file are named in a line; if all options are given there is no such line."""
    data = tmp_path / "mails.csv"
    lines = [f'"{text.replace(chr(34), "")[:40]}",{n % 2}' for n, text in enumerate(prose[:12])]
    data.write_text("\n".join(["message,category", *lines]) + "\n")
    words = [make_checkpoint("bert", 1, CLASSIFIER, seed=3), "--data", data, "--max-length", 64]
    assert "scored on: --task custom --text message --label category" in run("eval", *words).stderr
    given = run("eval", *words, "--task", "custom", "--text", "message", "--label", "category")
    assert (given.exit_code, "scored on" in given.stderr) == (0, False)
