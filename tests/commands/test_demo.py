"""demo, with a few reviews and updates instead of thousands and hundreds."""

import json
import random
import shlex
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertForMaskedLM, BertForQuestionAnswering
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.commands import demo as module
from distilkit.commands import demo_inputs
from distilkit.commands.demo_inputs import Sizes
from distilkit.errors import DistilkitError
from distilkit.options.recipes import COMMANDS
from distilkit.options.report import DemoOptions
from distilkit.record import Record, read_biography

SMALL = Sizes(labelled=64, few=40, unlabelled=64, heldout=32, validation=40, width=16, layers=2, epochs=1.0)
Ran = tuple[Path, Record, list[str]]


def no_plots(_results: Any) -> list[Any]:
    """Plots take a second each, and have tests of their own."""
    return []


def run(out: Path, **given: Any) -> Ran:
    """The directory, the record and the messages of a run without plots."""
    messages: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distilkit.commands.report.draw", no_plots)
        done = module.demo(DemoOptions(output=out, steps=2, **given), say=messages.append, sizes=SMALL)
    return out, done, messages


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run on made-up reviews."""
    return run(tmp_path_factory.mktemp("demo") / "out")


def test_every_model_has_every_metric(ran: Ran) -> None:
    """Teacher, student and baselines have five metrics each, and the student is smaller."""
    metrics = ran[1].metrics
    names = {"parameters", "bytes", "accuracy", "retention", "latency_ms_p50"}

    assert {f"{model}/{name}" for model in module.REVIEWED for name in names} <= metrics.keys()
    assert metrics["student/parameters"] == metrics["control/parameters"] == metrics["extracted/parameters"]
    assert metrics["student/parameters"] < metrics["teacher/parameters"]
    assert metrics["teacher/retention"] in (1.0, None)


def test_every_directory_is_a_checkpoint(ran: Ran) -> None:
    """from_pretrained opens each directory, and its record lists the commands that made it."""
    for name in module.REVIEWED:
        AutoModel.from_pretrained(ran[0] / name)
    histories = {name: [entry.command for entry in read_biography(ran[0] / name)] for name in module.REVIEWED}
    assert histories["student"] == ["finetune", "init", "distill"]
    assert histories["control"] == ["finetune", "init", "finetune"]


def test_the_report_has_the_models_scores_and_speeds(ran: Ran) -> None:
    """report finds the records of eval and bench beside the models."""
    metrics = read_biography(ran[0] / "report")[-1].metrics
    for figure in ("custom/accuracy", module.SPEED):
        reported = {value for name, value in metrics.items() if name.partition("/")[2] == figure}
        ours = {ran[1].metrics[f"{model}/{figure.rpartition('/')[2]}"] for model in module.REVIEWED}
        assert reported == ours
    assert (ran[0] / "report" / "report.html").is_file()


def test_it_ends_with_three_sentences(ran: Ran) -> None:
    """They have the record's figures, and say whether the difference is significant."""
    said = sentences(ran)
    assert len(said) == 3
    assert all(f"{ran[1].metrics[f'{model}/accuracy']:.1%}" in said[1] for model in module.REVIEWED)
    low, high = (ran[1].metrics[f"student/difference/custom/control/{end}"] for end in ("low", "high"))
    assert ("is significant" in said[2]) == (low > 0 or high < 0)
    assert f"{100 * low:+.1f} to {100 * high:+.1f}" in said[2]


def sentences(ran: Ran) -> list[str]:
    """The sentences that a run ended with."""
    (said,) = (message for message in ran[2] if "times as fast" in message)
    return said.strip().splitlines()


def test_the_printed_commands_are_those_that_ran(ran: Ran) -> None:
    """Each printed command has valid flags, and the student's record has the printed number of steps."""
    lines = "\n".join(ran[2]).splitlines()
    printed = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]
    help_of = {name: CliRunner().invoke(app, [name, "--help"]).stdout for name in COMMANDS}

    assert [words[1] for words in printed] == ["finetune", "init", "distill", "finetune", "eval", "bench", "report"]
    for words in printed:
        flags = [word for word in words if word.startswith("--")]
        assert all(flag in help_of[words[1]] for flag in flags), words
    student = read_biography(ran[0] / "student")[-1].config
    assert f"--steps {student['steps']}" in " ".join(printed[2])


def test_no_review_is_in_two_files(ran: Ran) -> None:
    """So the scores are on reviews that no model was trained on. Both training sets have the same validation rows."""
    rows = {
        name: [json.loads(line)["text"] for line in (ran[0] / name).read_text("utf-8").splitlines()]
        for name in ("labelled/train.jsonl", "few/train.jsonl", "labelled/validation.jsonl")
    }
    rows |= {name: (ran[0] / name).read_text("utf-8").splitlines() for name in ("corpus.txt", "heldout.txt")}
    everything = [text for texts in rows.values() for text in texts]
    assert len(everything) == len(set(everything)) == 64 + 40 + 40 + 64 + 32
    assert (ran[0] / "few/validation.jsonl").read_bytes() == (ran[0] / "labelled/validation.jsonl").read_bytes()


def reviews(seed: int, count: int) -> list[tuple[str, str]]:
    """The first reviews of a seed."""
    return list(islice(demo_inputs.distinct_reviews(random.Random(seed)), count))  # noqa: S311 - not for cryptography


def test_reviews_depend_on_the_seed_alone() -> None:
    """The same seed gives the same reviews, whose words are all in the vocabulary, and the labels are six."""
    first, again, other = (reviews(seed, 500) for seed in (1, 1, 2))
    assert first == again != other
    assert {word for text, _ in first for word in text.split()} <= set(demo_inputs.vocabulary())
    assert len({label for _, label in first}) == 6


def test_the_label_follows_from_the_deciding_clause() -> None:
    """Compared with a reading of the text by hand: which clause counts, its adjective, and its negation."""
    for text, label in reviews(3, 300):
        clauses = text.removesuffix(" .").removesuffix(" , but that does not matter").split(" , ")
        last = text.startswith("although") or clauses[-1].startswith("but ")
        words = clauses[-1 if last else 0].split()
        verdict = next(name for name, adjectives in demo_inputs.ADJECTIVES.items() if words[-1] in adjectives)
        subject = next(name for name, things in demo_inputs.THINGS.items() if set(things) & set(words))
        if {"not", "never", "hardly"} & set(words):
            verdict = {"good": "bad", "bad": "good"}[verdict]
        assert label == f"{verdict} {subject}", text


@pytest.mark.parametrize(("kind", "phrase"), [("masked-lm", "masked-LM loss"), ("classifier", "predicts what")])
def test_a_teacher_of_ones_own_goes_through_the_chain(kind: str, phrase: str, tmp_path: Path, ran: Ran) -> None:
    """Student and extracted layers are compared with it. The record holds the figures that the summary names."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(review for review, _ in reviews(5, 400)), "utf-8")
    teacher = ran[0] / "teacher" if kind == "classifier" else masked_lm(ran[0] / "untrained", tmp_path / "teacher")
    again = run(tmp_path / "out", teacher=str(teacher), corpus=str(text))
    said = sentences(again)
    assert len(said) == 3
    assert phrase in said[1]
    assert all(f"{again[1].metrics[f'{model}/agreement']:.3f}" in said[1] for model in module.COMPARED)
    heldout = (tmp_path / "out/heldout.txt").read_text("utf-8").splitlines()
    assert set(heldout).isdisjoint((tmp_path / "out/corpus.txt").read_text("utf-8").splitlines())
    assert (tmp_path / "out/report/report.html").is_file()


def masked_lm(encoder: Path, out: Path) -> Path:
    """Make an untrained masked LM with the tokenizer of another checkpoint."""
    BertForMaskedLM(AutoConfig.from_pretrained(encoder)).save_pretrained(out)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(out)
    return out


def test_a_sentence_encoder_is_compared_by_its_embeddings() -> None:
    """The sentence names the cosine, and the share of the gap that was closed."""
    metrics = {
        "student/agreement/cosine": 0.9, "extracted/agreement/cosine": 0.6, "student/difference": 0.1,
        "extracted/difference": 0.4, "student/difference/texts": 50.0,
    }  # fmt: skip
    first, second = module.say_agreement(7, metrics)
    assert "50 held-out texts, the mean cosine" in first
    assert "7 updates of distillation closed 75% of the gap" in second
    worse = metrics | {"student/agreement/cosine": 0.5}
    assert "no closer" in list(module.say_agreement(7, worse))[1]


def test_a_teacher_that_cannot_be_compared_is_refused_first(tmp_path: Path, ran: Ran) -> None:
    """A question-answering model needs questions, and the text has none. Nothing is written."""
    teacher = tmp_path / "qa"
    BertForQuestionAnswering(AutoConfig.from_pretrained(ran[0] / "untrained")).save_pretrained(teacher)
    with pytest.raises(DistilkitError, match=r"compares models with eval --agreement, but .* question-answering"):
        run(tmp_path / "out", teacher=str(teacher))
    assert not (tmp_path / "out").exists()


def test_corpus_needs_a_teacher() -> None:
    """Without --teacher, the demo distils on its made-up reviews."""
    with pytest.raises(DistilkitError, match="--corpus requires --teacher"):
        DemoOptions(corpus="text")
