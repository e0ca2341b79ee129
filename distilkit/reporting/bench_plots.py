"""The plots of a bench: latency against size, one plot per setting."""

from collections.abc import Sequence

from distilkit.record import BenchSetting, MetricName, Record
from distilkit.reporting.plots import STYLE, Plot, canvas, color_and_marker, legend, legend_label
from distilkit.screen import short_names
from distilkit.wording import describe_setting, plan_names


def draw_bench(done: Record) -> list[Plot]:
    """Draw the latency of all models against their size, a plot for each setting."""
    import matplotlib as mpl  # takes a while to load

    subjects = dict.fromkeys(MetricName.parse(name).subject for name in done.metrics)
    settings = [setting for subject in subjects if (setting := BenchSetting.parse(subject))]
    planned = done.config.get("plan")
    names = list(plan_names(done.metrics).values()) if planned else short_names(done.config["models"])
    with mpl.rc_context(STYLE):
        return [draw_setting(done.metrics, setting, names) for setting in settings]


def draw_setting(metrics: dict[str, float], setting: BenchSetting, names: Sequence[str]) -> Plot:
    """Draw median latencies, with a line up to the 95th percentile."""
    figure, axes = canvas(xlabel="size of the weights, MB", ylabel="latency, ms")
    descriptions = []
    for i, name in enumerate(names):
        size = metrics[f"{i}/bytes"] / 1e6
        median, high = (metrics[f"{i}/{setting}/latency_ms_p{rank}"] for rank in (50, 95))
        axes.plot([size, size], [median, high], color=color_and_marker(i)["color"], linewidth=1.2)
        axes.plot([size], [median], linestyle="", markersize=6, label=legend_label(name), **color_and_marker(i))
        descriptions.append(f"{name} {median:,.2f} ms at {size:,.1f} MB")
    axes.margins(0.15)
    axes.set_ylim(bottom=0)
    legend(figure, names)
    words = describe_setting(setting)
    text = f"Median latency ({words}) against size, with a line up to the 95th percentile: {'; '.join(descriptions)}."
    return Plot(f"latency-{str(setting).replace('/', '-')}", f"Latency: {words}", text, figure)
