"""bench --plan: its metrics, the student that it chooses, and what it refuses before it measures."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilkit.cli import app
from distilkit.commands import bench_plan
from distilkit.commands.bench import bench
from distilkit.errors import DistilkitError
from distilkit.next_command import next_command
from distilkit.options.bench import BenchOptions
from distilkit.record import Record, read_biography

SETTING = "cpu/fp32/b2/l16"
QUICK = {"devices": ("cpu",), "batch_sizes": (2,), "seq_lengths": (16,), "runs": 2, "plan": True}


@pytest.fixture(scope="module")
def planned(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    """A plan with two students, within a size that the larger one exceeds, and the directory that it was written to."""
    out = tmp_path_factory.mktemp("plan") / "out"
    given = {"layers": (1, 3), "vocabulary": 100, "tokens": 10_000, "budget": ("layers<=2", "vocabulary<=100")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_plan, "TIMED_SECONDS", 0.0)  # one update
        return bench(BenchOptions(models=(str(teacher),), output=out, **given, **QUICK)), out


def test_a_plan_has_sizes_speeds_and_training_times(planned: tuple[Record, Path]) -> None:
    """The teacher keeps its vocabulary, students are smaller, and the time is that of the tokens at the speed."""
    found = planned[0].metrics
    assert [found[f"{i}/layers"] for i in range(3)] == [4, 1, 3]
    assert [found[f"{i}/vocabulary"] for i in range(3)] == [400, 100, 100]
    assert found["0/bytes"] > found["2/bytes"] > found["1/bytes"]
    for i in range(3):
        assert found[f"{i}/latency_ms"] == found[f"{i}/{SETTING}/latency_ms_p50"] > 0
    for i in (1, 2):
        assert found[f"{i}/distill_seconds"] == pytest.approx(10_000 / found[f"{i}/distill_tokens_per_second"])
        assert found[f"{i}/speedup"] == found[f"{i}/{SETTING}/speedup"]
    assert "0/distill_seconds" not in found


def test_the_largest_student_within_the_budget_has_its_init_command(planned: tuple[Record, Path]) -> None:
    """Capitals stand for what only the user knows: the text for the vocabulary."""
    done, _ = planned
    assert done.metrics["chosen"] == 1
    (teacher,) = done.config["models"]
    command = next_command(done)
    assert command.startswith(f"distilkit init {teacher}")
    assert all(words in command for words in ("--layers 1", "--vocabulary 100", "--corpus TEXT", "-o student0"))


def test_record_and_plot_are_written_with_o(planned: tuple[Record, Path], teacher: Path) -> None:
    """Nothing is written beside the teacher."""
    done, out = planned
    assert read_biography(out)[0].metrics == pytest.approx(done.metrics)
    assert {path.name for path in out.iterdir()} == {
        "distilkit.json", *(f"latency-cpu-fp32-b2-l16.{end}" for end in ("png", "svg"))
    }  # fmt: skip
    assert not list(teacher.glob("bench*"))


def test_no_student_within_the_budget_exits_with_3(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the nearest student; the table is printed all the same."""
    monkeypatch.setattr(bench_plan, "TIMED_SECONDS", 0.0)
    quick = ["--devices", "cpu", "--batch-sizes", "2", "--seq-lengths", "16", "--runs", "2"]
    words = ["bench", "--plan", str(teacher), "--layers", "1,2", "--budget", "layers<=0.5"]
    result = CliRunner().invoke(app, [*words, *quick])
    assert result.exit_code == 3
    assert "no student is within --budget; the nearest has 1 layers (layers<=0.5: layers is 1)" in result.stderr
    assert "4 layers, the teacher" in result.stdout
    assert "next: " not in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": ("speed>=2",)}, "--budget 'speed>=2' names no metric"),
        ({"budget": ("teacher/bytes<=2",)}, "names no metric"),
        ({"require": ("latency<=1",)}, "--require 'latency<=1' names no metric"),
        ({"layers": (9,)}, "--layers 9"),
        ({"seq_lengths": (97,)}, "--seq-lengths 97"),
        ({"task": "sst2"}, "--task has no effect with --plan"),
        ({"load": True}, "--load has no effect with --plan"),
        ({"models": ("a", "b")}, "--plan takes one teacher, not 2 models"),
        ({"plan": False, "layers": (2,)}, "--layers requires --plan"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    options: dict[str, object], message: str, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag to change is named."""
    monkeypatch.setattr(bench_plan, "compare", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(DistilkitError, match=message):
        bench(BenchOptions(**{"models": (str(teacher),), **QUICK, **options}))
