"""Compare the speed of a distillation step with a plain implementation: same models, batch and optimizer.

    python examples/benchmarks/distill_step.py [--hidden 256] [--batch 8] [--length 128] [--steps 15] [--json] …

Three processes make steps in alternation, after five warm-up steps each: the plain implementation, distilkit with soft
targets at all tokens, and distilkit with soft targets at masked tokens. The table shows medians of times and of ratios
within a round. Peak memory is that of the process, or of its GPU. With --tuned the C library (glibc) keeps freed memory
instead of returning it to the system, in all three.

Floating-point operations are counted by torch.utils.flop_counter: a matrix product of (m, k) and (k, n) counts as
2·m·k·n, everything else as 0. They are compared with the rate of one large matrix product in the same process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
KINDS = ("plain", "all", "masked")
VOCABULARY = 30522
WARM_UP_STEPS = 5


def main() -> None:
    """Print a table with a row for each kind of step."""
    options = parse()
    if options.kind:
        serve(options)
        return
    environment = {**os.environ, **(TUNED if options.tuned else {})}
    command = [sys.executable, __file__, *sys.argv[1:], "--kind"]
    workers = {
        kind: subprocess.Popen(
            [*command, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for kind in KINDS
    }
    for worker in workers.values():
        for _ in range(WARM_UP_STEPS):
            request(worker)
    steps: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.steps):
        for kind, worker in workers.items():
            steps[kind].append(request(worker))
    ends = {kind: request(worker, "end") for kind, worker in workers.items()}
    rows = {kind: row(kind, steps, ends, options) for kind in KINDS}
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    names = list(rows["plain"])
    print("| step |", " | ".join(names), "|\n|:--|" + "--:|" * len(names))
    for kind, values in rows.items():
        print(
            f"| {kind} |",
            " | ".join(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values.values()),
            "|",
        )


def row(
    kind: str, steps: dict[str, list[dict[str, float]]], ends: dict[str, dict[str, float]], options: Any
) -> dict[str, float]:
    """Return the values of one row of the table."""
    seconds = [step["seconds"] for step in steps[kind]]
    ratios = [plain["seconds"] / mine for plain, mine in zip(steps["plain"], seconds, strict=True)]
    median, end = statistics.median(seconds), ends[kind]
    return {
        "ms": 1000 * median,
        "tokens/s": options.batch * options.length / median,
        "times plain": statistics.median(ratios),
        "peak MB": end["peak"] / 1e6,
        "of plain's": end["peak"] / ends["plain"]["peak"],
        "of plain's, above models and data": (end["peak"] - end["before"])
        / (ends["plain"]["peak"] - ends["plain"]["before"]),
        "GFLOP": end["flop"] / 1e9,
        "GFLOP/s": end["flop"] / 1e9 / median,
        "of the GEMM rate": end["flop"] / median / end["rate"],
        "loading and masking, of a step": end["loading"] / median,
    }


def parse() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kind", choices=KINDS)
    return parser.parse_args()


def request(worker: Any, word: str = "step") -> dict[str, float]:
    """Send a request to a process; return its response."""
    worker.stdin.write(word + "\n")
    worker.stdin.flush()
    return dict(json.loads(worker.stdout.readline()))


def serve(options: Any) -> None:
    """Make a step of one kind per line on stdin."""
    import torch
    from accelerate.utils import send_to_device

    from distilkit.training.devices import device

    cuda = torch.cuda.is_available()
    step, next_batch = make_step(options)
    before = peak(cuda=False)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        batch = send_to_device(next_batch(), device())
        started = time.perf_counter()
        step(batch)
        if cuda:
            torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
    at_most = peak(cuda)
    flop = count(step, send_to_device(next_batch(), device()))
    loading = statistics.median(timed(next_batch) for _ in range(30))
    print(
        json.dumps(
            {
                "peak": at_most,
                "before": 0 if cuda else before,
                "flop": flop,
                "rate": rate(options),
                "loading": loading,
            }
        )
    )


def make_step(options: Any) -> tuple[Any, Any]:
    """Return a function that makes one update from a batch, and one that returns the next batch."""
    import numpy as np
    import torch
    from accelerate import Accelerator
    from datasets import Dataset
    from plain_step import plain_step
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    from distilkit.data.batches import Batches
    from distilkit.data.masking import make_collate
    from distilkit.distillation.presets import WEIGHTS
    from distilkit.distillation.text_objective import Distillation
    from distilkit.encoders import layers
    from distilkit.options.distill import DistillOptions
    from distilkit.training.devices import autocast_dtype, open_accelerator
    from distilkit.training.loop import compile_encoders, make_optimizer, update
    from distilkit.training.objective import Objective

    torch.manual_seed(0)
    shape = {
        "hidden_size": options.hidden,
        "intermediate_size": 4 * options.hidden,
        "num_hidden_layers": options.layers,
    }
    teacher = BertForMaskedLM(
        BertConfig(**shape, num_attention_heads=options.hidden // 64, vocab_size=VOCABULARY)
    ).eval()
    student = layers.extract(teacher, range(0, options.layers, 2))
    words = [*["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], *(f"w{i}" for i in range(VOCABULARY - 5))]
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
    blocks = np.random.default_rng(0).integers(5, VOCABULARY, (2000, options.length)).astype("int32")
    rows = Dataset.from_dict({"input_ids": blocks})
    batches = Batches(rows, make_collate(tokenizer, 0.15), batch_size=options.batch, seed=0)
    numbers = iter(range(10**6))
    settings = DistillOptions(
        student="student", corpus="corpus", output=Path(), precision=options.precision, compile=options.compile, lr=5e-4
    )
    # The plain step uses the allocator's defaults. distilkit changes them when it opens its accelerator.
    accelerator = (
        Accelerator(mixed_precision=options.precision.replace("fp32", "no"))
        if options.kind == "plain"
        else open_accelerator(settings)
    )
    prepare = dict
    if options.kind == "plain":
        student.train().to(accelerator.device)
        teacher.to(accelerator.device)
        optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4, fused=True)
        autocast = accelerator.autocast
        if options.compile:
            compile_encoders(Objective(student, teacher))

        def step(batch: Any) -> None:
            plain_step(student, teacher, optimizer, batch, autocast())
    else:
        objective = Distillation(student, teacher, WEIGHTS["triple"], ce_positions=options.kind)
        objective.place_teacher(accelerator.device, autocast_dtype(options.precision))
        optimizer, _ = make_optimizer(objective, settings, 1000)
        if options.compile:
            compile_encoders(objective)
        wrapped, optimizer = accelerator.prepare(objective, optimizer)
        objective.train()
        prepare = objective.prepare

        def step(batch: Any) -> None:
            update(accelerator, objective, wrapped, optimizer, settings, [batch])

    return step, lambda: prepare(batches[next(numbers)])


def count(step: Any, batch: Any) -> float:
    """Count the floating-point operations of a step's matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def product(_: Any, left: Any, right: Any, **_options: Any) -> int:
        return int(2 * left[0] * left[1] * right[1])

    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.addmm_: product}
    ) as counter:  # torch does not count addmm_
        step(batch)
    return float(counter.get_total_flops())


def rate(options: Any) -> float:
    """Return the floating-point operations per second of a large matrix product in the same precision."""
    import torch

    size = 8192 if torch.cuda.is_available() else 2048
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device="cuda" if size == 8192 else "cpu", dtype=dtype) for _ in range(2))

    def product() -> None:
        left @ right
        if size == 8192:
            torch.cuda.synchronize()

    for _ in range(3):
        product()
    return 2.0 * size**3 / statistics.median(timed(product) for _ in range(15))


def timed(function: Any) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def peak(cuda: bool) -> float:
    """Return the peak memory so far in bytes: of the GPU's tensors, or of the process."""
    import torch

    if cuda:
        return float(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024.0 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main()
