"""Measure the memory of a model's weights and its forward pass."""

import json
import os
import tempfile
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from distilkit.encoders.sizes import memory_bytes

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # Otherwise the profiler logs to stderr.


@torch.inference_mode()
def peak_memory(model: nn.Module, inputs: dict[str, Tensor], device: str) -> int:
    """Return the bytes of a model's weights plus the peak of its activations in a forward pass. Warm it up first.

    Only tensors of torch's allocators count. The interpreter's hundreds of megabytes, which do not depend on the model,
    and scratch space of BLAS are excluded.
    """
    peak = _cuda_peak(model, inputs) if device == "cuda" else _cpu_peak(model, inputs)
    return memory_bytes(model) + peak


def _cuda_peak(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model(**inputs)
    return torch.cuda.max_memory_allocated() - before


def _cpu_peak(model: nn.Module, inputs: dict[str, Tensor]) -> int:
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
