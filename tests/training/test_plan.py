"""--plan: an estimate from a few updates that leaves no files."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.formatting import format_duration
from distilkit.options.distill import DistillOptions
from distilkit.training import plan
from distilkit.training.plan import calibrate

Words = Callable[..., list[str]]


@pytest.fixture
def words(make_checkpoint: Callable[..., Path], teacher: Path, corpus: Path) -> Words:
    """Return a function that builds the words of a distill command."""

    def command(out: Path, *more: str) -> list[str]:
        student = make_checkpoint("bert", 2)
        fixed = ["--teacher", str(teacher), "--corpus", str(corpus), "--seq-length", "32", "--batch-size", "4"]
        return ["distill", str(student), "-o", str(out), *fixed, *more]

    return command


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten calibrations to a tenth of a second."""
    monkeypatch.setattr(plan, "TIMED_SECONDS", 0.1)


def test_a_plan_is_one_record_and_leaves_nothing(
    words: Words, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens, updates and epochs equal those of the real run. No output or temporary directory remains."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, words(out, "--plan", "--json", "--epochs", "2", "--accumulate", "2"))
    assert done.exit_code == 0, done.stderr
    planned = json.loads(done.stdout)["metrics"]
    assert not out.exists()
    assert not list((tmp_path / "temporary").iterdir())

    real = CliRunner().invoke(app, words(out, "--json", "--epochs", "2", "--accumulate", "2"))
    found = json.loads(real.stdout)["metrics"]
    assert planned["updates"] == found["updates"]
    assert planned["epochs"] == pytest.approx(2, rel=0.1)  # the last update may reach into a third
    # packed blocks: every batch is of 4 · 32 tokens, but the last one of each epoch may lack up to 3 blocks
    assert 0 <= planned["tokens"] - found["tokens"] <= 2 * 3 * 32
    assert planned["memory_bytes"] > planned["peak_memory_bytes"] > 0


def test_a_plan_in_words(words: Words, short: None, tmp_path: Path) -> None:
    """The table shows durations, and peak memory beside available memory."""
    done = CliRunner().invoke(app, words(tmp_path / "out", "--plan", "--steps", "40"))
    rows = {line.rsplit("  ", 1)[0].strip(): line.rsplit("  ", 1)[-1].strip() for line in done.stdout.splitlines()}

    assert rows["updates"] == "40"
    assert rows["tokens"] == f"{40 * 4 * 32:,}"
    assert rows["peak memory"].endswith("GiB")
    assert " of " in rows["peak memory"]
    assert rows["training"].split()[-1] == "s"


def test_the_plan_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of 0.5 s each: 3 trial updates, 24 timed ones in 12 s, scaled to 1,000."""
    made: list[Any] = []

    def train(objective: Any, batches: Any, config: DistillOptions, out: Path, *, evaluate: Any, label: str) -> Any:
        made.append(config)
        evaluate()
        evaluate()
        steps = config.steps or 0
        seconds = 0.5 * steps
        numbers = {"updates": steps, "seconds": seconds, "tokens": 64.0 * steps, "tokens_per_second": 128.0}
        return numbers | {"peak_memory_bytes": 7.0 + steps}

    class Ten:
        per_epoch = 10

    monkeypatch.setattr(plan, "train", train)
    looked: list[int] = []
    config = DistillOptions(student="s", corpus="c", output=tmp_path, steps=1000, accumulate=2, compile=True)
    found = calibrate(
        None,  # type: ignore[arg-type]
        Ten(),  # type: ignore[arg-type]
        config,
        tmp_path,
        evaluate=lambda: looked.append(1) or {"heldout_loss": 1.0},  # type: ignore[func-returns-value]
        evaluate_every=300,
        label="distill",
    )

    assert [one.steps for one in made] == [3, 24]
    assert [one.compile for one in made] == [True, False]  # compiled once
    assert looked == [1]
    assert (found["updates"], found["epochs"], found["tokens"], found["seconds"]) == (1000, 200, 64_000, 500)
    assert found["peak_memory_bytes"] == 31
    assert 0 <= found["heldout_seconds"] < 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "0.2 s"),
        (59.4, "59 s"),
        (59.9, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7380, "2 h 3 min"),
        (183600, "2 d 3 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    """A duration has its two largest units."""
    assert format_duration(seconds) == words
