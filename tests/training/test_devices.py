import subprocess
import sys

import pytest

from distilkit.training.devices import keep_freed_memory

# 64 MB made, touched and dropped, eight times over: how many pages the kernel had to give, after a warm-up
FAULTS = """
import resource, sys
import torch
if sys.argv[1] == "kept":
    from distilkit.training.devices import keep_freed_memory
    assert keep_freed_memory()
for _ in range(4):
    kept = [torch.ones(2**24), torch.ones(2**24)]
    del kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    """Large tensors made one after the other mostly take pages that the process already has."""
    fewest = min(faults("kept") for _ in range(3))  # a busy system takes pages back in between
    assert 4 * fewest < faults("as it comes")


def test_the_users_own_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment tunes malloc, nothing is changed."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")

    assert keep_freed_memory() is False
