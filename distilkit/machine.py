"""Where and when a record is made: versions, processor, operating system, date."""

import contextlib
import functools
import os
from pathlib import Path

PACKAGES = ("distilkit", "torch", "transformers", "accelerate", "datasets", "tokenizers")
PACKAGE = Path(__file__).parent


def machine_facts() -> dict[str, str]:
    """Return the entries of a record's environment that every command has."""
    import importlib.metadata  # here and below, because --help would pay for them
    import platform
    from datetime import datetime, timezone

    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    commit = {"commit": found} if (found := checked_out_commit()) else {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "python": platform.python_version(), **versions, **commit,
        "machine": f"{platform.machine()}, {cores} CPU cores", "cpu": cpu_model() or platform.processor(),
        "os": platform.platform(aliased=True, terse=True),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip


def cpu_model() -> str:
    """Return the processor's name as Linux gives it, "" elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


@functools.cache
def checked_out_commit() -> str:
    """Return the commit of distilkit's git checkout, with + if files differ from it; "" for an installed package."""
    import subprocess

    if not (PACKAGE.parent / ".git").exists():
        return ""
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603 - no input of others
    except (OSError, subprocess.SubprocessError):
        return ""
