"""Load a model in a new process: the time until its first output, and the peak memory of that process.

The functions that run there import only what the model needs, as a program that uses it would.
"""

import json
import sys
import time
from pathlib import Path

import psutil

from distilkit.files import EXPORT_MANIFEST
from distilkit.runtimes.fresh import call_in_new_process

TOKENS = 16  # of the one input


def measure_loading(source: str, *, exported: bool) -> dict[str, float]:
    """Return load_seconds, with imports, and process_peak_bytes for an export or a checkpoint in torch."""
    return dict(call_in_new_process(f"{__name__}:{'load_export' if exported else 'load_checkpoint'}", source))


def load_checkpoint(name: str) -> dict[str, float]:
    """Load a checkpoint in this process and run it once."""
    started = time.perf_counter()
    import torch

    from distilkit.encoders import checkpoint

    with torch.inference_mode():
        model = checkpoint.open_model(name)
        model(input_ids=torch.ones(1, TOKENS, dtype=torch.long))
    return found(started)


def load_export(directory: str) -> dict[str, float]:
    """Load an export in this process, without torch if its runtime needs none, and run it once."""
    started = time.perf_counter()
    manifest = json.loads((Path(directory) / EXPORT_MANIFEST).read_text(encoding="utf-8"))
    path = str(Path(directory) / manifest["components"]["model"]["file"])
    {"onnx": run_onnx, "openvino": run_openvino, "executorch": run_executorch}[manifest["export_format"]](path)
    return found(started)


def run_onnx(path: str) -> None:
    """Run an ONNX program once."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    session.run(None, {entry.name: np.ones((1, TOKENS), dtype=np.int64) for entry in session.get_inputs()})


def run_openvino(path: str) -> None:
    """Run an OpenVINO program once."""
    import numpy as np
    import openvino

    model = openvino.Core().compile_model(path, "CPU")
    model({entry.any_name: np.ones((1, TOKENS), dtype=np.int64) for entry in model.inputs})


def run_executorch(path: str) -> None:
    """Run an ExecuTorch program once. Its runtime for Python takes tensors of torch."""
    import torch
    from executorch.runtime import Runtime

    forward = Runtime.get().load_program(path).load_method("forward")
    forward.execute([torch.ones(1, TOKENS, dtype=torch.long)] * forward.metadata.num_inputs())


def found(started: float) -> dict[str, float]:
    """Return the seconds since a start and the peak memory of this process."""
    return {"load_seconds": time.perf_counter() - started, "process_peak_bytes": float(peak_bytes())}


def peak_bytes() -> int:
    """Return the peak of this process's resident memory in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage() on Linux counts the process that started this one, too
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
