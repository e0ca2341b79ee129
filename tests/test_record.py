"""Records, metric names, and the history of a checkpoint."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from distilkit import __version__
from distilkit.errors import DistilkitError
from distilkit.options.spec import argument
from distilkit.record import (
    BenchSetting,
    MetricName,
    Record,
    baselines_by_prefix,
    parse_record,
    read_biography,
    record,
    remembered_teacher,
    write_biography,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    teacher: str = argument("A path.", "TEACHER")
    output: Path
    task: str = "here"
    keep: tuple[int, ...] = (1, 2)


def test_a_biography_comes_back_as_it_was(tmp_path: Path) -> None:
    """Records are read as written, oldest first; a directory without distilkit.json has none."""
    first = record("init", Config(teacher="teacher", output=tmp_path), {"layers": 6.0}, kept_layers="0,2")
    second = record("distill", Config(teacher="teacher", output=tmp_path), {"heldout_loss": 1.5})
    write_biography(tmp_path, [first, second])
    assert read_biography(tmp_path) == [first, second]
    content = json.loads((tmp_path / "distilkit.json").read_text())
    assert [list(entry) for entry in content] == [
        ["schema", "command", "config", "metrics", "environment", "given"]
    ] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["distilkit.json"]
    assert read_biography(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("text", ["{", '{"command": "init"}', "[1]", '[{"command": "init"}]'])
def test_a_damaged_biography_is_named(text: str, tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "distilkit.json").write_text(text)
    with pytest.raises(DistilkitError, match=r"distilkit\.json' is damaged"):
        read_biography(tmp_path)


def test_a_later_schema_is_still_read(tmp_path: Path) -> None:
    """Keys that this version does not know are dropped."""
    known = record("init", Config(teacher="t", output=tmp_path), {})
    (tmp_path / "distilkit.json").write_text(json.dumps([known.to_json() | {"later": 1}]))
    assert read_biography(tmp_path) == [known]


@pytest.mark.parametrize("name", ["output", "teacher", "model"])
def test_places_are_texts_in_every_record(name: str) -> None:
    """Readers use them whatever the command, also one that has no such option."""
    with pytest.raises(ValueError, match=f"config.{name} is 3"):
        parse_record({"command": "bench", "config": {name: 3}, "metrics": {}})


def test_local_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path typed in one directory is found from another; a hub id does not change."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert record("init", Config(teacher="here", output=Path("out")), {}).config == {
        "teacher": str(tmp_path / "here"),
        "output": str(tmp_path / "out"),
        "task": "here",  # not an option for paths, although a directory has this name
        "keep": [1, 2],
    }
    assert record("init", Config(teacher="org/model", output=Path("out")), {}).config["teacher"] == "org/model"


def test_the_environment_has_versions_and_machine() -> None:
    """Python, torch and transformers are recorded, with what the command adds."""
    from importlib.metadata import version

    found = record("init", Config(teacher="t", output=Path("o")), {}, device="cpu").environment
    assert (found["torch"], found["transformers"]) == (version("torch"), version("transformers"))
    assert found["device"] == "cpu"
    assert found.get("distilkit", __version__) == __version__


def test_the_teacher_is_the_last_one_named(tmp_path: Path) -> None:
    """The newest init or distill with a teacher counts, unless the caller names other commands."""
    steps: list[tuple[str, str | None]] = [("init", "a"), ("distill", "b"), ("distill", None), ("finetune", "c")]
    write_biography(
        tmp_path,
        [Record(command=name, config={"teacher": who}, metrics={}, environment={}) for name, who in steps],
    )
    assert remembered_teacher(tmp_path) == "b"
    assert remembered_teacher(tmp_path, ("finetune",)) == "c"
    assert remembered_teacher(tmp_path / "elsewhere") is None


EXAMPLES = {
    "agreement": MetricName(metric="agreement"),
    "agreement/ece": MetricName(subject="agreement", metric="ece"),
    "sst2/accuracy": MetricName(subject="sst2", metric="accuracy"),
    "sst2/accuracy/min": MetricName(subject="sst2", metric="accuracy", detail="min"),
    "1/retention/mrpc/low": MetricName(model="1", subject="retention/mrpc", detail="low"),
    "retention/mrpc/accuracy/high": MetricName(subject="retention/mrpc", metric="accuracy", detail="high"),
    "difference/mrpc/control-1": MetricName(subject="difference/mrpc", metric="control-1"),
    "difference/glue/teacher/low": MetricName(subject="difference/glue", metric="teacher", detail="low"),
    "0/cpu/fp32/b1/l128/latency_ms_p50": MetricName(model="0", subject="cpu/fp32/b1/l128", metric="latency_ms_p50"),
    "control-1/sst2/accuracy": MetricName(model="control-1", subject="sst2", metric="accuracy"),
    "teacher/parameters": MetricName(model="teacher", metric="parameters"),
    "1/speedup": MetricName(model="1", metric="speedup"),
    "mrpc/seed-3/collapsed": MetricName(subject="mrpc/seed-3", metric="collapsed"),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_name_comes_apart_and_together(text: str) -> None:
    """parse() puts each part in its field, and str() returns the name."""
    assert MetricName.parse(text) == EXAMPLES[text]
    assert str(MetricName.parse(text)) == text


def test_every_name_of_a_chain_comes_back(chain: Path) -> None:
    """The names that distill, finetune, eval and bench write."""
    names = [
        name for path in chain.rglob("distilkit.json") for done in read_biography(path.parent) for name in done.metrics
    ]
    for path in (chain / "eval.json", chain / "bench.json"):
        names += json.loads(path.read_text())["metrics"]
    assert len(names) > 30
    assert [str(MetricName.parse(name)) for name in names] == names


@pytest.mark.parametrize(
    ("text", "comparison", "task"),
    [
        ("0/retention/mrpc", "retention", "mrpc"),
        ("difference/glue/teacher", "difference", "glue"),
        ("sst2/f1", "", "sst2"),
    ],
)
def test_comparisons_know_their_task(text: str, comparison: str, task: str) -> None:
    """A score has a task too, but no comparison."""
    assert (MetricName.parse(text).comparison, MetricName.parse(text).task) == (comparison, task)


DOCS = Path(__file__).parents[1] / "docs/reference/metrics.md"
DOCUMENTED = sorted(set(re.findall(r"`([\w.+-]+(?:/[\w.+-]+)+)`", DOCS.read_text(encoding="utf-8"))))


def test_every_documented_name_comes_back() -> None:
    """The examples in the reference of metric names are taken apart and put together again."""
    assert len(DOCUMENTED) > 10
    assert [str(MetricName.parse(name)) for name in DOCUMENTED] == DOCUMENTED


@pytest.mark.parametrize(
    ("text", "seed", "task"),
    [("seed-42/collapsed", "42", "seed-42"), ("mrpc/seed-43/diverged", "43", "mrpc"), ("mrpc/collapsed", "", "mrpc")],
)
def test_marks_of_a_seed_have_its_number(text: str, seed: str, task: str) -> None:
    """With one task, its name is not part of the mark's name."""
    assert (MetricName.parse(text).seed, MetricName.parse(text).task) == (seed, task)


def test_settings_of_bench_come_apart_and_together() -> None:
    """Anything else is no setting."""
    assert BenchSetting.parse("cpu/fp32/b1/l128") == BenchSetting("cpu", "fp32", 1, 128)
    assert str(BenchSetting("cuda", "bf16", 32, 64)) == "cuda/bf16/b32/l64"
    assert BenchSetting.parse("mrpc") is None


def test_baselines_are_numbered_only_if_there_are_several() -> None:
    """The order is that of --control."""
    assert baselines_by_prefix(None) == {}
    assert baselines_by_prefix(["a"]) == {"control": "a"}
    assert baselines_by_prefix(["a", "b"]) == {"control-0": "a", "control-1": "b"}


def test_what_json_cannot_hold_is_null_and_nan_again(tmp_path: Path) -> None:
    """NaN and infinity are no JSON: other programs could not read the record."""
    done = Record(command="eval", config={"lr": math.inf}, metrics={"a": math.nan, "b": 1.0}, environment={})
    write_biography(tmp_path, [done])
    text = (tmp_path / "distilkit.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    (found,) = read_biography(tmp_path)
    assert math.isnan(found.metrics["a"])
    assert found.metrics["b"] == 1.0


def test_a_record_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It has no `given`, options that are gone, a single column as text, and NaN as it stands."""
    old = {
        "schema": 1, "command": "finetune", "environment": {"torch": "2.4"}, "metrics": {"custom/accuracy": math.nan},
        "config": {"model": "m", "text": "message", "warmup": 0.1, "gone": [{}], "output": "/a/o", "seeds": 1},
    }  # fmt: skip
    (tmp_path / "distilkit.json").write_text(json.dumps([old]))
    (found,) = read_biography(tmp_path)
    assert found.config == old["config"] | {"text": ["message"]}
    assert math.isnan(found.metrics["custom/accuracy"])
    assert found.given == {}
