"""A tagger through finetune and eval: learns, scores, compares, and refuses what does not fit."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from seqeval.metrics import f1_score
from typer.testing import CliRunner, Result

from distilkit.cli import app

QUICK = ("--lr", 3e-3, "--epochs", 5, "--batch-size", 16, "--keep", "last")
FIRST, LAST, PLACES = ("Random", "Json"), ("Text", "String"), ("Module", "File")


def run(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def sentences(count: int, seed: int) -> list[dict[str, list[str]]]:
    """Return made-up sentences in which words decide their tags."""
    generator = random.Random(seed)  # noqa: S311
    rows = []
    for _ in range(count):
        tokens, tags = [], []
        for _ in range(generator.randint(2, 5)):
            kind = generator.choice(("O", "PER", "LOC"))
            if kind == "PER":
                tokens += [generator.choice(FIRST), generator.choice(LAST)]
                tags += ["B-PER", "I-PER"]
            else:
                tokens.append(generator.choice(PLACES if kind == "LOC" else ("return", "the", "value")))
                tags.append("B-LOC" if kind == "LOC" else "O")
        rows.append({"tokens": tokens, "ner_tags": tags})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training rows as jsonl, validation rows as a CoNLL file."""
    folder = tmp_path_factory.mktemp("entities")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sentences(96, 0)))
    lines = ["\n".join(f"{w} {t}" for w, t in zip(*row.values(), strict=True)) for row in sentences(40, 1)]
    (folder / "valid.txt").write_text("\n\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tagger(teacher: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that has learned the made-up entities."""
    out = tmp_path_factory.mktemp("taggers") / "teacher"
    done = run(
        "finetune",
        teacher,
        "--task",
        "custom",
        "--kind",
        "tokens",
        "--data",
        data,
        "-o",
        out,
        *QUICK,
    )
    assert done.exit_code == 0, done.output
    return out


def metrics_of(directory: Path) -> dict[str, float]:
    """Return the metrics of the last record of a checkpoint."""
    found: dict[str, float] = json.loads((directory / "distilkit.json").read_text())[-1]["metrics"]
    return found


def test_a_tagger_learns_entities(tagger: Path) -> None:
    """The record has the scores of entities, over all and by type; the labels' names are in the config."""
    scores = metrics_of(tagger)
    assert scores["custom/f1"] > 0.9
    assert scores["custom/f1/PER/count"] > 0
    assert {"custom/precision/LOC", "custom/recall/PER", "custom/accuracy"} <= scores.keys()
    config = json.loads((tagger / "config.json").read_text())
    assert sorted(config["label2id"]) == ["B-LOC", "B-PER", "I-PER", "O"]


def test_a_student_learns_from_a_tagger_and_is_compared(
    tagger: Path, data: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Soft targets and hidden states train a student; eval without --kind gives retention, intervals and the file."""
    student, out = make_checkpoint("bert", 2, seed=5), tmp_path / "student"
    rows = ("--task", "custom", "--data", data)
    done = run(
        "finetune", student, *rows, "--kind", "tokens", "-o", out, "--teacher", tagger, "--alpha-hidden", 1,
        *QUICK, "--seeds", 2,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    columns = ("--text", "tokens", "--label", "ner_tags")
    done = run(
        "eval", out, *rows, *columns, "--against", tagger, "--control", tagger, "--write-predictions", tmp_path / "p",
        "--require", "custom/f1>=0.5", "--require", "custom/f1/PER>=0.2", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)["metrics"]
    assert (
        scores["retention/custom/low"]
        <= scores["retention/custom"]
        == scores["custom/f1"] / scores["teacher/custom/f1"]
    )
    assert {
        "difference/custom/teacher/high",
        "retention/custom/recall",
        "difference/custom/precision/control",
    } <= scores.keys()
    lines = (tmp_path / "p/custom.tsv").read_text().splitlines()[1:]
    guesses = [line.split("\t")[1].split() for line in lines]
    assert f1_score([row["ner_tags"] for row in sentences(40, 1)], guesses) == pytest.approx(scores["custom/f1"])


def test_a_teacher_may_have_another_tokenizer(
    tagger: Path, data: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Soft targets are compared at the first token of each word, in each model's own tokens."""
    student = make_checkpoint("bert", 2, seed=6)
    text = json.loads((student / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    names = list(vocabulary)
    vocabulary[names[50]], vocabulary[names[51]] = vocabulary[names[51]], vocabulary[names[50]]
    (student / "tokenizer.json").write_text(json.dumps(text))
    out = tmp_path / "student"
    done = run(
        "finetune", student, "--task", "custom", "--data", data, "--kind", "tokens", "-o", out, "--teacher", tagger,
        "--alpha-task", 0, "--alpha-ce", 1, *QUICK,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert metrics_of(out)["custom/f1"] > 0.5  # from the teacher alone


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "2 words but 1 tags in row 2"),
        ({"tokens": ["a"], "ner_tags": [None]}, "no 'ner_tags' in row 2"),
        ({"tokens": [["a"]], "ner_tags": ["O"]}, "nested values"),
        ({"tokens": ["a"]}, "row 2"),
    ],
)
def test_rows_that_do_not_fit_are_refused(teacher: Path, tmp_path: Path, row: dict[str, object], words: str) -> None:
    """One line names the row."""
    for split in ("train", "validation"):
        good = {"tokens": ["a", "b"], "ner_tags": ["O", "B-X"]}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    done = run("finetune", teacher, "--task", "custom", "--kind", "tokens", "--data", tmp_path, "-o", tmp_path / "o")
    assert done.exit_code == 1
    assert words in done.stderr


def test_a_tagger_is_no_classifier(make_checkpoint: Callable[..., Path], data: Path) -> None:
    """A checkpoint without a trained head for tags is refused."""
    plain = make_checkpoint("bert", 2)
    done = run("eval", plain, "--task", "custom", "--kind", "tokens", "--data", data)
    assert done.exit_code == 1
    assert "token-classification" in done.stderr
