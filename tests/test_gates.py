"""--require: which metrics a gate means, and whether it is met."""

from collections.abc import Callable

import pytest

from distilkit.errors import DistilkitError
from distilkit.gates import check_gates, choose_largest, parse_gate, unmet_budget, unmet_gates
from distilkit.record import FAILURES

METRICS = {"sst2/accuracy": 0.9, "1/speedup": 1.5, "2/speedup": 2.5}


@pytest.mark.parametrize(
    ("gate", "failing"),
    [
        ("sst2/accuracy>=0.9", []),
        ("sst2/accuracy > 0.9", ["sst2/accuracy"]),
        ("sst2/accuracy<=0.9", []),
        ("sst2/accuracy<0.9", ["sst2/accuracy"]),
        ("accuracy>=0.95", ["sst2/accuracy"]),
        ("speedup>=2", ["1/speedup"]),
        ("speedup>=3e0", ["1/speedup", "2/speedup"]),
        ("2/speedup>=2", []),
    ],
)
def test_gates_compare_every_metric_that_they_name(gate: str, failing: list[str]) -> None:
    """A name without its prefix means every metric that ends in it; each one that fails is listed with its value."""
    lines = unmet_gates((gate,), METRICS)
    assert lines == [f"{gate}: {name} is {METRICS[name]:.6g}" for name in failing]


@pytest.mark.parametrize("mark", FAILURES)
def test_a_model_that_learned_nothing_meets_no_gate(mark: str) -> None:
    """Its scores may be high enough, because one label is frequent. A teacher, baseline or single seed may fail."""
    scores = {"0/mrpc/f1": 0.81, "1/mrpc/f1": 0.9, f"0/mrpc/{mark}": 1.0}
    assert unmet_gates(("mrpc/f1>=0.8",), scores) == [f"mrpc: model 0 {FAILURES[mark]}"]
    assert unmet_gates((), scores) == []
    others = {
        "mrpc/f1": 0.9,
        **dict.fromkeys((f"teacher/mrpc/{mark}", f"control-1/mrpc/{mark}", f"seed-3/{mark}"), 1.0),
    }
    assert unmet_gates(("mrpc/f1>=0.8",), others) == []


COMPARED = {
    "0/sst2/accuracy": 0.8,
    "0/retention/sst2": 0.9,
    "0/retention/sst2/low": 0.7,
    "0/retention/squad/exact_match": 0.5,
    "0/squad/exact_match": 81.0,
    "1/retention/sst2": 0.95,
    "teacher/sst2/accuracy": 0.1,
    "control/retention/sst2": 0.1,
}


@pytest.mark.parametrize(
    ("gate", "failing"),
    [
        ("retention>=0.97", ["0/retention/sst2", "1/retention/sst2"]),
        ("retention>=0.92", ["0/retention/sst2"]),
        ("retention/sst2>=0.92", ["0/retention/sst2"]),
        ("retention/sst2/low>=0.8", ["0/retention/sst2/low"]),
        ("0/retention/sst2/low>=0.8", ["0/retention/sst2/low"]),
        ("exact_match>=80", []),
        ("exact_match>=82", ["0/squad/exact_match"]),
        ("retention/squad/exact_match>=0.8", ["0/retention/squad/exact_match"]),
        ("sst2/accuracy>=0.5", []),
        ("teacher/sst2/accuracy>=0.5", ["teacher/sst2/accuracy"]),
        ("control/retention/sst2>=0.5", ["control/retention/sst2"]),
    ],
)
def test_a_gate_on_retention_means_every_task(gate: str, failing: list[str]) -> None:
    """`retention` means every task but no end of an interval; a teacher's or baseline's metric needs its full name."""
    assert unmet_gates((gate,), COMPARED) == [f"{gate}: {name} is {COMPARED[name]:.6g}" for name in failing]


def test_a_teacher_without_a_score_meets_no_gate() -> None:
    """If the teacher's score is 0 or less there is no retention, so the gate on all tasks is not met."""
    metrics = {"retention/sst2": 0.99, "difference/sst2/teacher": -0.01, "difference/cola/teacher": 0.0}

    lines = ["retention>=0.9: there is no retention/cola, because the teacher's score is 0 or less"]
    assert unmet_gates(("retention>=0.9",), metrics) == lines
    assert unmet_gates(("retention/sst2>=0.9",), metrics) == []


@pytest.mark.parametrize("gate", ["", "accuracy", "accuracy=0.9", "accuracy>=", ">=0.9", "accuracy>=high", "a>=1e"])
def test_a_gate_that_cannot_be_read_is_refused(gate: str) -> None:
    """The message names the gate and shows an example."""
    with pytest.raises(DistilkitError, match=r"--require .*sst2/accuracy>=0\.90"):
        parse_gate(gate)


@pytest.mark.parametrize(
    "check", [lambda: unmet_gates(("peedup>=1",), METRICS), lambda: unmet_gates(("speedup>=1",), {})]
)
def test_a_gate_that_names_no_metric_is_refused(check: Callable[[], object]) -> None:
    """Otherwise a misspelt gate would always be met."""
    with pytest.raises(DistilkitError, match=r"--require .*no metric"):
        check()


PLANNED = {
    "0/parameters": 9.0, "0/bytes": 36.0, "0/latency_ms": 8.0,
    **{f"{i}/layers": float(i) for i in (1, 2, 3)},
    **{f"{i}/parameters": float(2 * i) for i in (1, 2, 3)},
    **{f"{i}/bytes": 8.0 * i for i in (1, 2, 3)},
    **{f"{i}/latency_ms": 2.0 * i for i in (1, 2, 3)},
    **{f"{i}/cpu/fp32/b{batch}/l8/speedup": 6.0 / i / batch for i in (1, 2, 3) for batch in (1, 2)},
}  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (("bytes<=24",), "3"),
        (("bytes<24",), "2"),
        (("bytes<=24", "latency_ms<=3"), "1"),
        (("speedup>=1.5",), "2"),  # in every setting
        (("latency_ms<=1",), None),
        (("energy_joules_per_1000<=9",), None),  # not measured
    ],
)
def test_a_budget_chooses_the_largest_student_within_all_limits(budget: tuple[str, ...], chosen: str | None) -> None:
    """The teacher, number 0, is not among them."""
    assert choose_largest(budget, PLANNED) == chosen
    assert bool(unmet_budget(budget, PLANNED)) == (chosen is None)


def test_the_student_nearest_to_a_budget_is_named() -> None:
    """The one whose worst miss, as a share of the limit, is smallest; with each limit that it misses."""
    (line,) = unmet_budget(("latency_ms<=1", "parameters>=4"), PLANNED)
    reasons = "latency_ms<=1: latency_ms is 2; parameters>=4: parameters is 2"
    assert line == f"no student is within --budget; the nearest has 1 layers ({reasons})"
    assert unmet_budget((), PLANNED) == []


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("bytes<=baseline", "--budget 'bytes<=baseline' cannot be read"),
        ("50e6", "write it like 'latency_ms<=10'"),
        ("latencies<=1", "--budget 'latencies<=1' names no metric"),
    ],
)
def test_a_limit_that_cannot_be_checked_is_refused(limit: str, message: str) -> None:
    """The error names --budget, not --require."""
    with pytest.raises(DistilkitError, match=message):
        check_gates((limit,), PLANNED, "--budget")


def test_a_label_of_several_words() -> None:
    """Spaces inside a name belong to it, those around it do not."""
    metrics = {"custom/f1/bug report": 0.8}
    assert unmet_gates((" custom/f1/bug report >= 0.7 ",), metrics) == []
    assert unmet_gates(("f1/bug report>0.9",), metrics) == ["f1/bug report>0.9: custom/f1/bug report is 0.8"]
