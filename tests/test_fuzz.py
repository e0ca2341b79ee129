"""Readers and parsers take any input: they return what it says, or raise the one error of their kind."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fuzzing import as_json, changed, check_file, damaged, many, odd_number, odd_text, odd_value
from hypothesis import given, settings
from hypothesis import strategies as st

from distilkit.commands.report import report
from distilkit.distillation.cache_manifest import read_manifest
from distilkit.errors import DistilkitError
from distilkit.evaluation.predictions import read_span_predictions
from distilkit.formatting import printable
from distilkit.gates import check_gates, metrics_meant, parse_gate, unmet_gates
from distilkit.options.declare import build
from distilkit.options.recipes import COMMANDS, read_recipe
from distilkit.options.report import ReportOptions
from distilkit.options.spec import fields_of, is_list
from distilkit.options.values import parse
from distilkit.record import BenchSetting, MetricName, json_text, parse_record
from distilkit.tasks.catalogue import TASKS
from distilkit.training.log import parse_line
from distilkit.training.resume import read_run

pytestmark = pytest.mark.slow
WORDS = (
    *("sst2", "mrpc", "accuracy", "f1", "retention", "difference", "teacher", "control", "control-1", "0", "1", "low"),
    *(
        "high",
        "min",
        "max",
        "cpu",
        "fp32",
        "b1",
        "l128",
        "speedup",
        "seed-1",
        "collapsed",
        "glue",
        "",
        "b" + "9" * 5000,
    ),
)
word = st.sampled_from(WORDS)
metric_name = st.one_of(odd_text, st.lists(word, max_size=6).map("/".join))
operator = st.sampled_from([">=", "<=", ">", "<", "=", "==", "=>", " >= ", ""])
gate = st.one_of(
    odd_text,
    st.tuples(metric_name, operator, st.one_of(odd_text, odd_number.map(lambda number: str(number)[:400]))).map(
        "".join
    ),
)


CONFIG = {
    "model": "m", "teacher": "t", "output": "/a/o", "task": "sst2", "data": "/a/d", "seeds": 3, "seed": 1, "lr": 1e-3,
    "models": ["/a/m"], "against": "/a/t", "control": ["/a/c"], "text": ["a", "b"], "objective": "mlm", "corpus": "c",
    "max_length": 128, "seq_length": 64, "vocabulary": "10", "batch_size": 8, "keep": [0, 1], "student": "s",
}  # fmt: skip
METRICS = {
    "sst2/accuracy": 0.9, "0/sst2/accuracy": 0.9, "0/retention/sst2": 0.9, "0/retention/sst2/low": 0.8,
    "seconds": 3.0, "tokens": 10, "updates": 4.0, "loss": 1.5, "heldout_loss": 2.0, "tokens_per_second": 3.0,
    "0/difference/sst2/control": 0.1, "0/cpu/fp32/b1/l64/latency_ms_p50": 3.0, "1/speedup": 2.0, "parameters": 1e6,
    "teacher/layers": 4.0, "student/layers": 2.0, "student/parameters": 1e5, "teacher/parameters": 2e5,
    "sst2/seed-1/collapsed": 1.0, "max_difference": 0.0,
}  # fmt: skip
FACTS = {"torch": "2", "machine": "x", "kept_layers": "0,1", "glue/average": "a b", "device": "cpu", "head": "encoder"}
commands = st.one_of(st.sampled_from([*COMMANDS, "eval", "bench", "distill", "finetune"]), odd_text, odd_value)
records = st.fixed_dictionaries(
    {"command": commands, "config": changed(CONFIG), "metrics": changed(METRICS), "environment": changed(FACTS)}
).flatmap(changed)


@many
@given(gate, st.dictionaries(metric_name, st.floats(), max_size=6))
def test_gates(text: str, metrics: dict[str, float]) -> None:
    """A gate is read, and met or not by any metrics; or it is an error of the user's."""
    try:
        name, compare, bound = parse_gate(text)
        check_gates((text,), metrics)
        assert math.isfinite(bound.number)
        assert compare in (">=", "<=", ">", "<")
        assert set(metrics_meant(name, metrics)) <= metrics.keys()
        unmet_gates((text,), metrics)
    except DistilkitError:
        pass


@many
@given(metric_name)
def test_metric_names(text: str) -> None:
    """Taking a name apart and putting it together changes it at most by empty words."""
    name = MetricName.parse(text)
    assert str(name) == text or "" in text.split("/")
    assert [part for part in str(name).split("/") if part] == [part for part in text.split("/") if part]
    assert isinstance(name.task + name.seed + name.comparison, str)
    BenchSetting.parse(name.subject)


@many
@given(st.one_of(records, odd_value))
def test_records(entry: Any) -> None:
    """A record is read with values of the right types, and written as JSON; or it is a ValueError."""
    try:
        found = parse_record(json.loads(as_json(entry)))
    except ValueError:
        return
    assert all(isinstance(value, (int, float)) for value in found.metrics.values())
    assert all(isinstance(value, str) for value in found.environment.values())
    assert all(isinstance(found.config.get(name), (str, type(None))) for name in ("output", "teacher", "model"))
    text = json_text(found.to_json())  # in which numbers that are not finite are null
    again = parse_record(json.loads(text, parse_constant=pytest.fail))
    assert json_text(again.to_json()) == text


@many
@given(
    st.one_of(damaged(changed({"step": 1, "tokens": 2, "loss": 3.0, "heldout_loss": None}).map(as_json)), st.binary())
)
def test_lines_of_a_log(data: bytes) -> None:
    """A line of train.jsonl has numbers alone, with step and tokens; or it counts as unreadable."""
    line = parse_line(data.decode("utf-8", "replace"))
    assert not line or ({"step", "tokens"} <= line.keys() and all(type(v) in (int, float) for v in line.values()))


@many
@given(damaged(changed({"steps": 4, "lr": 0.1, "rows": "x", "updates": 3}).map(as_json)))
def test_run_json(tmp_path: Path, data: bytes) -> None:
    """The options of an interrupted run are an object."""
    assert isinstance(check_file(tmp_path / "run.json", data, lambda: read_run(tmp_path)), (dict, type(None)))


MANIFEST = {
    "schema": 1, "teacher": "x", "corpus": "y", "seed": 3, "tokens": 9, "blocks": 2, "asked": 2, "fill_seconds": 0.5,
}  # fmt: skip


@many
@given(damaged(changed(MANIFEST).map(as_json)))
def test_manifests_of_a_teacher_cache(tmp_path: Path, data: bytes) -> None:
    """A seed is a whole number, and costs are numbers."""
    found = check_file(tmp_path / "manifest.json", data, lambda: read_manifest(tmp_path))
    assert found is None or (type(found["seed"]) is int and float(found.get("asked", 0)) is not None)


answers = st.dictionaries(st.sampled_from(["q0", "q1", "q2", "x"]), st.one_of(odd_text, odd_value), max_size=4)
odds = st.dictionaries(st.sampled_from(["q0", "q1", "q2", "x"]), st.one_of(odd_number, odd_value), max_size=4)


@many
@given(damaged(answers.map(as_json)), st.one_of(st.none(), damaged(odds.map(as_json))))
def test_prediction_files(tmp_path: Path, data: bytes, null_odds: bytes | None) -> None:
    """Answers are texts of some of the questions, and null odds numbers."""
    golds = {"q0": ["a"], "q1": ["b"], "q2": list[str]()}
    path = tmp_path / "null_odds.json"
    if null_odds is not None:
        path.write_bytes(null_odds)
    task, file = TASKS["squad_v2"], tmp_path / "p.json"
    file.write_bytes(data)
    try:
        found = read_span_predictions(task, golds, file, path if null_odds is not None else None)
    except DistilkitError:
        return
    assert all(isinstance(answer, str) for answer in found.texts.values())


def toml_value(value: Any) -> str:
    """Write a value as TOML, as far as TOML has it."""
    if isinstance(value, bool) or value is None:
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value) if isinstance(value, str) else str(value)


keys = st.one_of(
    st.sampled_from(sorted({item.name for options in COMMANDS.values() for item, _ in fields_of(options)})), odd_text
)
tables = st.dictionaries(
    keys, st.one_of(odd_number.filter(lambda n: abs(n) < 1e300), odd_text, st.booleans(), odd_value)
)
recipes = st.tuples(st.sampled_from([*COMMANDS, "other"]), tables).map(
    lambda parts: f"[{parts[0]}]\n" + "".join(f"{json.dumps(k)} = {toml_value(v)}\n" for k, v in parts[1].items())
)


@many
@given(damaged(recipes), st.sampled_from(sorted(COMMANDS)))
def test_recipes(tmp_path: Path, data: bytes, command: str) -> None:
    """A recipe gives options that their class takes; whatever it cannot give is an error of the user's."""
    required = {"output": Path("o"), "teacher": "t", "student": "s", "model": "m", "corpus": "c", "task": "sst2"}
    required |= {"models": ("m",), "directories": ("d",)} | ({"data": Path("d")} if command == "predict" else {})
    names = {item.name for item, _ in fields_of(COMMANDS[command])}

    def read() -> Any:
        table = read_recipe(str(tmp_path / "r.toml"), command)
        return build(COMMANDS[command], {k: v for k, v in required.items() if k in names}, table)

    check_file(tmp_path / "r.toml", data, read)


LISTS = [(item, kind) for options in COMMANDS.values() for item, kind in fields_of(options) if is_list(item, kind)]


@many
@given(st.sampled_from(LISTS), st.one_of(odd_text, st.lists(odd_number.map(str), max_size=5).map(",".join)))
def test_lists(option: Any, text: str) -> None:
    """Layers and lengths are whole numbers within their range."""
    try:
        found = parse(*option, text)
    except DistilkitError:
        return
    assert all(isinstance(entry, (int, str)) and entry != "" for entry in found)


@many
@given(odd_text)
def test_texts_on_a_terminal(text: str) -> None:
    """What is shown has no control characters, and printable text is shown as it is."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@settings(many, max_examples=300)
@given(st.lists(records, min_size=1, max_size=3), st.booleans())
def test_reports_of_odd_records(tmp_path_factory: pytest.TempPathFactory, entries: list[Any], card: bool) -> None:
    """Whatever records hold, a report is written or refused."""
    root = tmp_path_factory.mktemp("report")
    (root / "m").mkdir()
    (root / "m/config.json").write_text("{}")
    (root / "m/distilkit.json").write_text(as_json(entries))
    (root / "m/eval.json").write_text(as_json(entries[-1]))
    try:
        report(ReportOptions(directories=(str(root / "m"),), output=root / "out", card=card))
    except DistilkitError:
        assert not (root / "out").exists()
