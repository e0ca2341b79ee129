"""The export formats: the packages that each needs, and the settings for transformers' exporters and runners.

transformers.exporters is imported where it is used, because older versions of transformers lack it.
"""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.export import Dim

from distilkit.errors import DistilkitError

if TYPE_CHECKING:
    from transformers.exporters import DynamoConfig

EXECUTORCH_BATCH = 32  # largest batch of an ExecuTorch program, which reserves the memory of its largest inputs at once
PACKAGES = {  # packages that a format imports; the extra with the format's name installs them
    "onnx": ("transformers.exporters", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("transformers.exporters", "openvino"),
    "executorch": ("transformers.exporters", "executorch"),
}


def require_packages(form: str) -> None:
    """Raise DistilkitError if a format is unknown, or if its packages are not installed."""
    if form not in PACKAGES:
        raise DistilkitError(f"unknown export format '{form}': formats are {', '.join(PACKAGES)}")
    missing = [package for package in PACKAGES[form] if importlib.util.find_spec(package) is None]
    if missing:
        raise DistilkitError(f"{form} requires {', '.join(missing)}: pip install 'distilkit[{form}]'")


def export_config(form: str, inputs: Sequence[str], max_tokens: int | None, *, int8: bool) -> "DynamoConfig":
    """Return the exporter's settings: any batch size and length; with `int8`, weights of 8 bits.

    Activations are quantised while the model runs, so no calibration data is needed. Each output channel has a scale
    of its own, which about halves the error.
    """
    from transformers import exporters

    configs: dict[str, type[DynamoConfig]] = {
        "onnx": exporters.OnnxConfig,
        "openvino": exporters.OpenVINOConfig,
        "executorch": exporters.ExecutorchConfig,
    }
    batch = Dim("batch", min=1, max=EXECUTORCH_BATCH) if form == "executorch" else Dim("batch")
    shape = {0: batch, 1: Dim("length", min=1, max=max_tokens)}
    quantizer = exporters.OnnxRuntimeQuantizer(exporters.OnnxRuntimeDynamicConfig(per_channel=True)) if int8 else None
    return configs[form](dynamic=True, dynamic_shapes=dict.fromkeys(inputs, shape), quantizer=quantizer)


def runner_options(form: str, threads: int) -> dict[str, Any]:
    """Return the runner's settings that make it use this number of CPU threads."""
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        session.log_severity_level = 3  # errors only
        return {"session_options": session}
    if form == "executorch":
        return {}
    # OpenVINO would choose bf16 on CPUs that have it
    return {"config": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}}
