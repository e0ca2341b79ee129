"""Metrics in words, with units and three digits."""

import pytest

from distilkit.wording import describe


@pytest.mark.parametrize(
    ("name", "value", "words", "text", "better"),
    [
        ("sst2/accuracy", 0.8234, "SST-2 accuracy", "82.3 %", 1),
        ("squad/f1", 88.54, "SQuAD 1.1 F1", "88.5 %", 1),  # SQuAD's own scripts count from 0 to 100
        ("custom/f1_macro", 0.5, "tickets macro F1", "50.0 %", 1),
        ("cola/matthews_correlation/min", 0.30251, "CoLA Matthews correlation, lowest seed", "0.303", 1),
        ("0/bytes", 90_867_952, "size", "90.9 MB", -1),
        ("parameters", 22_713_986, "parameters", "22.71 M", 0),
        ("0/parameters_other", 768.0, "parameters other", "768", 0),
        ("0/cpu/fp32/b1/l128/latency_ms_p50", 31.2806, "latency, median: CPU fp32, batch 1, 128 tokens", "31.3 ms", -1),
        (
            "0/cpu/fp32/b1/data/energy_joules_per_1000",
            45.67,
            "energy for 1,000 inputs: CPU fp32, batch 1, real lengths",
            "45.7 J",
            -1,
        ),
        ("1/weights_memory_bytes", 69e6, "weights in memory", "69.0 MB", -1),
        ("1/distill_seconds", 7200.0, "distill seconds", "2 h 0 min", 0),
        ("1/speedup", 1.92377, "speed-up", "1.92 ×", 1),
        ("seconds", 2172.0, "training time", "36 min 12 s", 0),
        ("tokens", 102_400.0, "tokens", "102,400", 0),
        ("heldout_loss", 4.62622, "held-out loss", "4.63", -1),
        ("1/retention/sst2/low", 0.942643, "model 1: SST-2 retention, 95 % from", "94.3 %", 1),
        ("difference/sst2/teacher", -0.02523, "SST-2 difference to the teacher", "-0.025", 0),
    ],
)
def test_describe(name: str, value: float, words: str, text: str, better: int) -> None:
    """The task and the metric have their usual names, a custom task that of its data; the best is known."""
    shown = describe(name, "tickets")
    assert (shown.words, shown.write(value), shown.better) == (words, text, better)
