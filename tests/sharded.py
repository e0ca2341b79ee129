"""distilkit under FSDP on CPUs, which accelerate offers on accelerators only: run by `accelerate launch` in a test."""

import os
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
barrier = torch.distributed.barrier


def wait(*_: Any, **__: Any) -> None:
    """gloo knows of no device_ids."""
    barrier()


torch.distributed.barrier = wait

from distilkit.cli import app  # noqa: E402

app(prog_name="distilkit")
