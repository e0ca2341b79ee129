"""The plots of a bench against the numbers of its record."""

from typing import Any

from distilkit.record import Record
from distilkit.reporting.bench_plots import draw_bench

METRICS = {
    "0/bytes": 8e6, "1/bytes": 5e6,
    **{f"{i}/cpu/fp32/b1/{length}/latency_ms_p50": 4.0 - i for i in (0, 1) for length in ("l8", "data")},
    **{f"{i}/cpu/fp32/b1/{length}/latency_ms_p95": 6.0 - i for i in (0, 1) for length in ("l8", "data")},
}  # fmt: skip


def done(metrics: dict[str, float], **config: Any) -> Record:
    """Return the record of a bench."""
    return Record(command="bench", config=config, metrics=metrics, environment={})


def test_a_plot_a_setting_with_each_model_at_its_size_and_latency() -> None:
    """A line goes from the median up to the 95th percentile."""
    plots = draw_bench(done(METRICS, models=["runs/teacher", "runs/student"]))
    assert [plot.name for plot in plots] == ["latency-cpu-fp32-b1-l8", "latency-cpu-fp32-b1-data"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in plots[0].figure.axes[0].lines}
    assert lines["teacher"] == [[8, 4]]
    assert lines["student"] == [[5, 3]]
    assert [[8, 4], [8, 6]] in lines.values()
    assert "student 3.00 ms at 5.0 MB" in plots[0].description


def test_the_models_of_a_plan_have_their_layers_as_names() -> None:
    """The record of a plan names the teacher alone."""
    (plot, _) = draw_bench(done(METRICS | {"0/layers": 4.0, "1/layers": 2.0}, models=["runs/teacher"], plan=True))
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == ["4 layers, the teacher", "2 layers"]
