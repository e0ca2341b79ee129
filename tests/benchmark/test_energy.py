"""Energy from counters in files, by hand; what a machine without them gives."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from distilkit.benchmark import energy
from distilkit.benchmark.energy import NOT_AVAILABLE, find_counters, joules_per_1000


def write_domain(root: Path, name: str, microjoules: int, largest: int = 999_999) -> Path:
    """Write a domain as Linux shows it; return the file of its counter."""
    (root / name).mkdir(parents=True)
    (root / name / "max_energy_range_uj").write_text(f"{largest}\n")
    (root / name / "energy_uj").write_text(f"{microjoules}\n")
    return root / name / "energy_uj"


def passes(counters: dict[Path, list[int]], monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a pass over 4 inputs that takes a second and leaves the next values in the counters."""
    clock, left = SimpleNamespace(now=0.0), {path: iter(values) for path, values in counters.items()}

    def run() -> int:
        clock.now += 1
        for path, values in left.items():
            path.write_text(f"{next(values)}\n")
        return 4

    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return run


def test_joules_per_1000_inputs_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages use 0.3 J and 0.1 J over 8 inputs, one of them across the end of its counter: 50 J per 1,000."""
    one, two = (
        write_domain(tmp_path, f"intel-rapl:{number}", start) for number, start in enumerate((100_000, 950_000))
    )
    write_domain(tmp_path, "intel-rapl:0:0", 0)  # a part of the first package
    found = find_counters("cpu", tmp_path)
    assert (found.source, len(found.counters)) == ("processor packages (RAPL)", 2)
    run = passes({one: [200_000, 400_000], two: [990_000, 50_000]}, monkeypatch)
    assert joules_per_1000(run, found, seconds=2) == pytest.approx({"energy_joules_per_1000": 50.0})


def test_a_machine_without_readable_counters_gives_no_energy(tmp_path: Path) -> None:
    """The models are then not run for it."""
    (tmp_path / "intel-rapl:0").mkdir()  # most systems show the directory to all, and let only root read the counter
    for device in ("cpu", "mps"):
        found = find_counters(device, tmp_path)
        assert found.source == NOT_AVAILABLE
        assert joules_per_1000(lambda: pytest.fail("the model was run"), found) == {}
