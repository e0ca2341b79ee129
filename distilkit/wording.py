"""Names of tasks and metrics for people, and how the value of a metric is written."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from distilkit.formatting import format_duration
from distilkit.record import FAILURES, BenchSetting, MetricName

DISPLAY_NAMES = {  # of tasks, by metric prefix, in the order of tables
    "cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "qqp": "QQP", "stsb": "STS-B", "mnli": "MNLI", "qnli": "QNLI",
    "mnli_mismatched": "MNLI-mm", "rte": "RTE", "wnli": "WNLI", "glue": "GLUE",
    "glue_without_wnli": "GLUE without WNLI", "squad": "SQuAD 1.1",
    "squad_v2": "SQuAD 2.0", "imdb": "IMDb", "custom": "custom task",
    "sts": "STS", "retrieval": "retrieval",
}  # fmt: skip
METRIC_NAMES = {
    "ndcg_at_10": "nDCG@10", "mrr_at_10": "MRR@10", "recall_at_1": "recall@1", "recall_at_10": "recall@10",
    "f1": "F1", "f1_macro": "macro F1", "f1_micro": "micro F1", "exact_match": "exact match",
    "matthews_correlation": "Matthews correlation", "pearson": "Pearson", "spearmanr": "Spearman",
    "bytes": "size", "latency_ms_p50": "latency, median", "latency_ms_p95": "latency, 95th percentile",
    "latency_ms_p99": "latency, 99th percentile",
    "throughput_sequences_per_second": "sequences per second", "tokens_per_second": "tokens per second",
    "peak_memory_bytes": "peak memory", "weights_memory_bytes": "weights in memory",
    "process_peak_bytes": "peak memory of a new process", "load_seconds": "time to load",
    "energy_joules_per_1000": "energy for 1,000 inputs", "speedup": "speed-up", "heldout_loss": "held-out loss",
    "heldout_agreement": "agreement with the teacher, held-out text",
    "heldout_cosine": "cosine to the teacher, held-out text",
    "heldout_neighbours": "same 10 neighbours as the teacher, held-out text",
    "heldout_kl": "divergence from the teacher, held-out text",
    "heldout_difference": "difference from the teacher, held-out text", "seconds": "training time",
    "loss": "last training loss", "max_difference": "largest output difference",
    "max_embedding_difference": "largest embedding difference",
    "kept_evaluation": "weights from evaluation", "low": "95 % from", "high": "to",
    "min": "lowest seed", "max": "highest seed",
}  # fmt: skip
PERCENT = (
    "accuracy",
    "f1",
    "f1_macro",
    "f1_micro",
    "exact_match",
    "agreement",
    "heldout_agreement",
    "retention",
    "heldout_neighbours",
)
LESS = (
    *("loss", "heldout_loss", "heldout_kl", "heldout_difference"),
    *("load_seconds", "energy_joules_per_1000"),
)
COUNTS = ("updates", "tokens", "rows", "count", "kept_evaluation", "layers", "vocabulary", *FAILURES)


class Shown(NamedTuple):
    """How a metric is shown: its name in words, how to write a value, and whether more (1) or less (-1) is better."""

    words: str
    write: Callable[[float], str]
    better: int = 0


def describe(name: str, data: str = "") -> Shown:
    """Return how a metric is shown; `data` is the name of a custom task's data."""
    model, subject, metric, detail = parsed = MetricName.parse(name)
    key = parsed.comparison or metric
    end = f", {METRIC_NAMES.get(detail, detail)}" if detail else ""
    if setting := BenchSetting.parse(subject):
        return describe(metric)._replace(words=f"{metric_name(metric)}: {describe_setting(setting)}{end}")
    words = metric_name(metric)
    if subject == "difference/texts" and not metric:  # beside `difference` of eval --agreement, not of a task
        return Shown(f"texts compared{end}", count)
    if parsed.comparison:
        score, _, other = f"/{metric}".rpartition("/") if key == "difference" else (metric, "", "")
        than = f" to the {other.replace('control', 'baseline')}" if other else ""
        parts = (whose(model), task_name(parsed.task, data), metric_name(score.strip("/")), key)
        words = " ".join(filter(None, parts)) + than
    elif subject:
        words = f"{task_name(subject, data)} {words}"
    return Shown(words + end, writer(key, subject), direction(key))


def whose(model: str) -> str:
    """Return which model a comparison is about, if the metric's name says so: a numbered model or a baseline."""
    return f"model {model}:" if model.isdigit() else f"{model.replace('control', 'baseline')}:" if model else ""


def writer(metric: str, subject: str) -> Callable[[float], str]:
    """Return a function that writes a metric's value with its unit and three digits."""
    if subject == "share":
        return writer("accuracy", "")
    if metric in PERCENT and subject.startswith("squad"):  # whose own scripts count from 0 to 100
        return lambda value: f"{value:.1f} %"
    return next((write for applies, write in WRITERS if applies(metric)), three_digits)


def three_digits(value: float) -> str:
    """Write a number with three significant digits, a large one with all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def count(value: float) -> str:
    """Write a number of things: all digits of a whole one, three of a mean."""
    return f"{value:,.0f}" if float(value).is_integer() else three_digits(value)


def format_parameters(value: float) -> str:
    """Write a number of parameters in millions, fewer than 5,000 with all digits."""
    return f"{value / 1e6:,.2f} M" if value >= 5000 else f"{value:,.0f}"


WRITERS: tuple[tuple[Callable[[str], bool], Callable[[float], str]], ...] = (  # the first that applies
    (lambda metric: metric in PERCENT, lambda value: f"{100 * value:.1f} %"),
    (lambda metric: metric == "difference", lambda value: f"{value:+.3f}"),
    (lambda metric: metric.endswith("bytes"), lambda value: f"{value / 1e6:,.1f} MB"),
    (lambda metric: "parameters" in metric, format_parameters),
    (lambda metric: "latency_ms" in metric, lambda value: f"{three_digits(value)} ms"),
    (lambda metric: metric == "energy_joules_per_1000", lambda value: f"{three_digits(value)} J"),
    (lambda metric: metric == "load_seconds", lambda value: f"{three_digits(value)} s"),
    (lambda metric: metric == "speedup", lambda value: f"{value:.2f} ×"),
    (lambda metric: metric in ("seconds", "distill_seconds"), format_duration),
    (lambda metric: metric in COUNTS or metric.endswith("_per_second"), count),
)


def direction(metric: str) -> int:
    """Return 1 if more of a metric is better, -1 if less is, 0 if neither."""
    if (
        metric in PERCENT
        or metric.endswith(("_per_second", "speedup"))
        or metric in ("pearson", "spearmanr", "heldout_cosine")
    ):
        return 1
    more = metric in ("matthews_correlation", "average", "average_without_wnli")
    less = metric.endswith("bytes") or "latency_ms" in metric or metric in LESS
    return int(more) - int(less)


def metric_name(metric: str) -> str:
    """Return a metric's display name."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def task_name(prefix: str, data: str = "") -> str:
    """Return the name of a task in tables and plots; `prefix` is the first part of its metric names."""
    return data if prefix == "custom" and data else DISPLAY_NAMES.get(prefix, prefix)


def plan_names(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the names of the models of `bench --plan` by number: the teacher and its students."""
    layers = {
        parts.model: value for name, value in metrics.items() if (parts := MetricName.parse(name)).metric == "layers"
    }
    return {number: f"{count:.0f} layers{'' if int(number) else ', the teacher'}" for number, count in layers.items()}


def describe_setting(setting: BenchSetting) -> str:
    """Describe a setting of bench in words."""
    device = "CPU" if setting.device == "cpu" else "GPU"
    length = f"{setting.length} tokens" if setting.length else "real lengths"
    return f"{device} {setting.precision}, batch {setting.batch_size}, {length}"
