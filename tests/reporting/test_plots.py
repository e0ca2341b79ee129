"""The plots against the numbers of the records."""

from pathlib import Path
from typing import Any

import pytest

from distilkit.reporting.models import Model, Results, read
from distilkit.reporting.plots import CURVE_POINTS, Plot, draw, save
from distilkit.training.learning_curve import points


@pytest.fixture
def drawn(chain: Path) -> dict[str, Plot]:
    """The plots of the chain, by name."""
    return {plot.name: plot for plot in draw(read([str(chain)]))}


def lines(plot: Plot, label: str) -> Any:
    return next(line for line in plot.figure.axes[0].lines if line.get_label() == label)


def test_there_is_a_plot_for_each_thing_that_was_measured(drawn: dict[str, Plot]) -> None:
    """Retention, the score against latency, masked LM, and the other loss term."""
    assert set(drawn) == {"retention", "frontier-mrpc", "learning-curve", "learning-curve-ce"}


def test_retention_is_drawn_with_its_interval(drawn: dict[str, Plot]) -> None:
    """A point with a bar for its confidence interval; without an interval, a point alone; a line at 1, the teacher."""
    (axes,) = drawn["retention"].figure.axes
    assert lines(drawn["retention"], "student-tuned").get_xdata().tolist() == [0.95]
    assert lines(drawn["retention"], "control-tuned").get_xdata().tolist() == [0.9]
    spans = [list(line.get_xdata()) for line in axes.lines]
    assert [0.91, 0.985] in spans
    assert [1.0, 1.0] in spans
    assert [label.get_text() for label in axes.get_yticklabels()] == ["MRPC"]


def test_the_frontier_has_latency_score_and_size(drawn: dict[str, Plot]) -> None:
    """Each model is a point at its latency and score; the teacher is twice the size and has the larger marker."""
    (axes,) = drawn["frontier-mrpc"].figure.axes
    found = {dots.get_label(): dots for dots in axes.collections}
    assert {name: dots.get_offsets().tolist() for name, dots in found.items()} == {
        "teacher-tuned": [[8.0, 0.88]], "student-tuned": [[5.0, 0.836]], "control-tuned": [[4.0, 0.792]],
    }  # fmt: skip
    assert found["teacher-tuned"].get_sizes()[0] > found["student-tuned"].get_sizes()[0]


def test_learning_curves_are_the_lines_of_train_jsonl(drawn: dict[str, Plot]) -> None:
    """Training losses are faint, held-out losses have markers, both over tokens; runs differ in colour and marker."""
    (axes,) = drawn["learning-curve"].figure.axes
    student, baseline = (lines(drawn["learning-curve"], name) for name in ("student", "control"))
    assert student.get_xydata().tolist() == [[200, 4.5], [300, 4.25]]
    training = [line for line in axes.lines if line.get_label().startswith("_")]
    assert [line.get_xydata().tolist() for line in training] == [[[100, 5.0], [200, 4.0], [300, 3.5]]] * 2
    assert all(line.get_alpha() < 1 for line in training)
    assert training[0].get_color() == student.get_color() != baseline.get_color()
    assert student.get_marker() != baseline.get_marker()
    assert axes.get_xlabel() == "tokens"
    part = lines(drawn["learning-curve-ce"], "student")
    assert part.get_xydata().tolist() == [[100, 3.0], [200, 2.0], [300, 1.5]]


def test_a_long_curve_is_averaged() -> None:
    """Neighbouring updates are averaged, which keeps the page small; the overall mean does not change."""
    run = [{"step": i, "tokens": 10 * i, "loss": float(i)} for i in range(1, 4 * CURVE_POINTS + 1)]
    shown = points(run, "loss", CURVE_POINTS)
    assert len(shown) == CURVE_POINTS
    assert shown[0] == (25.0, 2.5)
    assert sum(y for _, y in shown) / CURVE_POINTS == pytest.approx((4 * CURVE_POINTS + 1) / 2)


def test_plots_are_saved_twice_and_the_same_every_time(chain: Path, tmp_path: Path) -> None:
    """A PNG and an SVG without the date, so that the same records give the same files."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(draw(read([str(chain)]))[0], tmp_path / name)
    assert (tmp_path / "a/retention.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "a/retention.svg").read_text()
    assert (tmp_path / "a/retention.svg").read_bytes() == (tmp_path / "b/retention.svg").read_bytes()


def test_without_records_there_are_no_plots() -> None:
    """An empty report is not an error."""
    assert draw(Results([], [])) == []


def test_a_mean_retention_is_over_the_tasks_that_all_models_have() -> None:
    """A model that was not scored on a third task is compared on the two common ones."""
    tasks = {"cola/matthews_correlation": 0.1, "sst2/accuracy": 0.5, "rte/accuracy": 0.5}
    first = {"retention/cola": 0.5, "retention/sst2": 1.0, "retention/rte": 0.9, **tasks, "bytes": 4e6}
    second = {"retention/cola": 0.6, "retention/sst2": 1.0, "bytes": 4e6}
    models = [Model(name, f"/{name}", [], facts, []) for name, facts in (("a", first), ("b", second))]
    plots = {plot.name: plot for plot in draw(Results(models, []))}
    text = plots["frontier-retention"].description
    assert "Mean retention, 2 tasks" in text
    assert "a 0.750" in text
    assert "b 0.800" in text


def test_a_long_legend_does_not_squeeze_a_plot() -> None:
    """With six long names, one per row, the axes are as high as with two short names."""
    heights = []
    for count, name in ((2, "m{}"), (6, "student-with-a-name-of-forty-letters-and-{}")):
        facts = [{"sst2/accuracy": 0.5 + n / 100, "bytes": 4e6 + n} for n in range(count)]
        models = [Model(name.format(n), f"/{n}", [], facts[n], []) for n in range(count)]
        (plot,) = draw(Results(models, []))
        plot.figure.draw_without_rendering()
        heights.append(plot.figure.axes[0].get_window_extent().height / plot.figure.dpi)
    assert heights[1] == pytest.approx(heights[0], rel=0.05)
