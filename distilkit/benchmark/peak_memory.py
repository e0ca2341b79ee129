"""Measure the memory of a model's weights and forward pass."""

import json
import os
import tempfile
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from distilkit.encoders.sizes import memory_bytes

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler talks on stderr


@torch.inference_mode()
def peak_memory(model: nn.Module, inputs: dict[str, Tensor], device: str) -> int:
    """Return the bytes of a model's weights and of what a (warm) forward pass adds to them at its peak.

    That is what torch's allocators hand out for tensors: not the interpreter, hundreds of megabytes whatever the
    model, and not the scratch space of BLAS.
    """
    rise = _rise_on_cuda(model, inputs) if device == "cuda" else _rise_on_cpu(model, inputs)
    return memory_bytes(model) + rise


def _rise_on_cuda(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model(**inputs)
    return torch.cuda.max_memory_allocated() - before


def _rise_on_cpu(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(**inputs)
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted(
        (event for event in events if event.get("name") == "[memory]"), key=lambda event: float(event["ts"])
    )
    return max(accumulate((int(event["args"]["Bytes"]) for event in memory), initial=0))
