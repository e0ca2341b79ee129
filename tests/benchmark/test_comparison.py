"""What else the machine did during a comparison, and the order of the metrics."""

from types import SimpleNamespace

import pytest

from distilkit.benchmark import comparison
from distilkit.benchmark.comparison import OtherProcesses, ratios_first


def test_the_share_of_other_processes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 s of CPU time, 5 were idle and 9 were this process's: 6 s, 30 %, were others'."""
    times = iter([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0], [12.0, 0.0, 3.0, 4.0, 1.0, 0.0, 0.0, 0.0, 9.0]])
    own = iter([(1.0, 0.0), (9.0, 1.0)])

    class Totals(list):
        idle, iowait = property(lambda self: self[3]), property(lambda self: self[4])

    process = SimpleNamespace(
        cpu_times=lambda: SimpleNamespace(**dict(zip(("user", "system"), next(own), strict=True)))
    )
    monkeypatch.setattr(
        comparison, "psutil", SimpleNamespace(cpu_times=lambda: Totals(next(times)), Process=lambda: process)
    )
    assert OtherProcesses().share() == pytest.approx(0.3)


def test_ratios_come_first() -> None:
    """Then sizes, then what was measured in each setting."""
    measured = {"1/speedup": 2.0, "0/cpu/fp32/b1/l8/tokens_per_second": 9.0, "1/cpu/fp32/b1/l8/speedup/low": 1.0}
    found = list(ratios_first(measured, {"0/bytes": 1.0}))
    assert found == ["1/speedup", "1/cpu/fp32/b1/l8/speedup/low", "0/bytes", "0/cpu/fp32/b1/l8/tokens_per_second"]
