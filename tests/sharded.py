"""distilkit under FSDP or DeepSpeed on CPUs, which accelerate offers on accelerators only; $SHARDED says which.

What `accelerate launch` runs in a test.
"""

import contextlib
import os
import sys
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from distilkit.training import devices

VARIABLES = {
    "FSDP": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"},
    "DeepSpeed": {
        "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2", "DS_ACCELERATOR": "cpu"
    },
}  # fmt: skip
os.environ |= VARIABLES[os.environ["SHARDED"]] | {"ACCELERATE_TORCH_DEVICE": "cpu"}
devices._only_cpus = lambda: False
PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)  # type: ignore[method-assign]
with contextlib.redirect_stdout(sys.stderr):  # where DeepSpeed says what it has built
    PartialState()
barrier = torch.distributed.barrier


def wait(*_: Any, **__: Any) -> None:
    """gloo knows of no device_ids."""
    barrier()


torch.distributed.barrier = wait

from distilkit.cli import app  # noqa: E402

app(prog_name="distilkit")
