"""Metric names come apart and together again."""

from pathlib import Path

import pytest

from distilkit.record import MetricName, read_biography

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
    """Each part is where it belongs, and str() gives the name back."""
    assert MetricName.parse(text) == EXAMPLES[text]
    assert str(MetricName.parse(text)) == text


def test_every_name_of_a_chain_comes_back(chain: Path) -> None:
    """Whatever commands write."""
    names = [
        name for path in chain.rglob("distilkit.json") for done in read_biography(path.parent) for name in done.metrics
    ]
    assert len(names) > 20
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
    """A score is about a task as well."""
    assert (MetricName.parse(text).comparison, MetricName.parse(text).task) == (comparison, task)
