"""How to minimise it: the one training loop, for `distill` and `finetune` alike.

A batch is a function of its number, so a run that was interrupted needs to know nothing but the number of its last
update to go on exactly where it was.
"""

import json
import math
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import get_linear_schedule_with_warmup

from distilkit.config import TrainConfig, flag
from distilkit.errors import DistilkitError
from distilkit.progress import track
from distilkit.record import plain, write_text

Collate = Callable[[list[dict[str, Any]], torch.Generator], dict[str, Tensor]]
PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
CHECKPOINTS_KEPT = 2
MAY_CHANGE = {"resume", "log_every", "checkpoint_every", "output", "steps_per_call"}


class Batches(Dataset[dict[str, Tensor]]):
    """Numbered micro-batches of shuffled rows, as many as asked for: batches[n] is the n-th of the run.

    Every epoch has its own order and every batch its own generator, both made from the seed and a number.
    """

    def __init__(self, rows: Any, collate: Collate, *, batch_size: int, seed: int) -> None:
        self.rows, self.collate, self.batch_size, self.seed = rows, collate, batch_size, seed
        self.per_epoch = math.ceil(len(rows) / batch_size)
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, torch.randperm(len(self.rows), generator=_generator(self.seed, -1, epoch))
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size].tolist()
        return self.collate([self.rows[index] for index in chosen], _generator(self.seed, 0, number))


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(numbers) % 2**63)  # hash() of integers is the same in every process


def train(
    objective: nn.Module,
    batches: Batches,
    config: TrainConfig,
    out: Path,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    label: str = "train",
) -> dict[str, float]:
    """Minimise objective(batch)["loss"] in place and return what the run came to.

    Writes out/train.jsonl, a line an update (and a line for each evaluate()), and checkpoints; with config.resume it
    goes on from the newest one. AdamW, linear warm-up, then linear to 0.
    Raises DistilkitError where the loss isn't finite, and KeyboardInterrupt, after a checkpoint, on SIGINT and SIGTERM.
    """
    accelerator = open_accelerator(config)
    set_seed(config.seed)
    updates = count_updates(batches, config, accelerator.num_processes)
    optimizer = torch.optim.AdamW(
        parameter_groups(objective, config), betas=(0.9, config.adam_beta2), eps=config.adam_epsilon, fused=True
    )
    scheduler = get_linear_schedule_with_warmup(optimizer, math.ceil(config.warmup * updates), updates)
    objective, optimizer = accelerator.prepare(objective, optimizer)
    accelerator.register_for_checkpointing(scheduler)
    done = restore(accelerator, out, config, updates)
    log = Log(out, accelerator, done)
    objective.train()
    if evaluate and not done:
        log.heldout(evaluate())
    with track(label, updates, done=done, unit="updates", quiet=not accelerator.is_main_process) as advance, stop_signal() as stopped:
        micro_batches = iter(load(batches, range(done, updates), config, accelerator))
        for step in range(done + 1, updates + 1):
            log.update(step, scheduler.get_last_lr()[0], update(accelerator, objective, optimizer, config, micro_batches))
            scheduler.step()
            last = step == updates
            if step % config.log_every == 0 or last or stopped():
                log.flush(out)
            if evaluate and (last or (evaluate_every and step % evaluate_every == 0)):
                log.heldout(evaluate())
            if stopped() or (step % config.checkpoint_every == 0 and not last):
                save_checkpoint(accelerator, out, step)
            if stopped():
                raise KeyboardInterrupt
            advance(1, log.text)
    return log.summary()


def update(
    accelerator: Accelerator, objective: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, micro_batches: Iterator[Any]
) -> list[dict[str, Tensor]]:
    """Make one update from `accumulate` micro-batches and return their losses; gradients are shared on the last only."""
    readings = []
    for micro in range(config.accumulate):
        batch = send_to_device(next(micro_batches), accelerator.device, non_blocking=True)
        shared = micro == config.accumulate - 1
        with nullcontext() if shared else accelerator.no_sync(objective):
            parts = objective(batch)
            accelerator.backward(parts["loss"] / config.accumulate)
        tokens = batch["attention_mask"].sum() if "attention_mask" in batch else torch.tensor(batch["input_ids"].numel())
        readings.append({name: part.detach() for name, part in parts.items()} | {"tokens": tokens})
    accelerator.clip_grad_norm_(objective.parameters(), config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return readings


def open_accelerator(config: TrainConfig) -> Accelerator:
    """Make the Accelerator: device, processes and precision."""
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise DistilkitError("--precision fp16 needs a GPU: use bf16 or fp32")
    return Accelerator(mixed_precision=PRECISIONS[config.precision])


def count_updates(batches: Batches, config: TrainConfig, processes: int) -> int:
    """Return how many updates --steps or --epochs come to."""
    if config.steps:
        return config.steps
    return max(1, math.ceil(config.epochs * batches.per_epoch / (config.accumulate * processes)))


def parameter_groups(objective: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Group the trained parameters: head or body (--head-lr), with weight decay or (biases, norms) without."""
    base = getattr(getattr(objective, "student", None), "base_model", objective)
    body = {id(parameter) for parameter in base.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in body, parameter.ndim > 1), []).append(parameter)
    head_lr = config.lr if config.head_lr is None else config.head_lr
    return [
        {"params": parameters, "lr": config.lr if in_body else head_lr, "weight_decay": config.weight_decay if decays else 0.0}
        for (in_body, decays), parameters in groups.items()
    ]


def load(batches: Batches, steps: range, config: TrainConfig, accelerator: Accelerator) -> DataLoader[Any]:
    """Return a loader of the micro-batches that this process takes in those updates, in order."""
    world, rank = accelerator.num_processes, accelerator.process_index
    first, last = steps.start * config.accumulate, steps.stop * config.accumulate
    numbers = range(first * world + rank, last * world, world)
    return DataLoader(Subset(batches, numbers), batch_size=None, pin_memory=accelerator.device.type == "cuda")  # type: ignore[arg-type]


class Log:
    """train.jsonl: a line an update, read off the device only now and then."""

    def __init__(self, out: Path, accelerator: Accelerator, done: int) -> None:
        self.path, self.accelerator = out / "train.jsonl", accelerator
        self.pending: list[tuple[int, float, list[dict[str, Tensor]]]] = []
        self.text = ""
        self.lines = _lines_until(self.path, done)
        self.last = next((line for line in reversed(self.lines) if "loss" in line), {"step": 0, "tokens": 0, "seconds": 0.0})
        if accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self.clock = time.monotonic() - self.last["seconds"]

    def update(self, step: int, lr: float, readings: list[dict[str, Tensor]]) -> None:
        """Keep the losses of an update, still on the device."""
        self.pending.append((step, lr, readings))

    def flush(self, out: Path) -> None:
        """Write the pending updates; their time is shared evenly among them."""
        seconds, before = time.monotonic() - self.clock, self.last["seconds"]
        for place, (step, lr, readings) in enumerate(self.pending, 1):
            values = {name: self._mean(name, readings) for name in readings[0]}
            tokens = round(values.pop("tokens") * len(readings) * self.accelerator.num_processes)
            now = before + (seconds - before) * place / len(self.pending)
            rate = tokens / max(now - self.last["seconds"], 1e-9)
            total = self.last["tokens"] + tokens
            self.last = {"step": step, **values, "lr": lr, "tokens": total, "seconds": now, "tokens_per_second": rate}
            self._write(self.last)
            if not math.isfinite(values["loss"]):
                raise DistilkitError(f"the loss is {values['loss']} at update {step}: lower --lr{_last_good(out)}")
        self.pending.clear()
        self.text = f"loss {self.last['loss']:.3f}, {self.last['tokens_per_second']:.0f} tokens/s"

    def _mean(self, name: str, readings: list[dict[str, Tensor]]) -> float:
        mean = torch.stack([reading[name].float() for reading in readings]).mean()
        return float(self.accelerator.reduce(mean.to(self.accelerator.device), "mean"))

    def heldout(self, metrics: dict[str, float]) -> None:
        """Write a held-out line; the time it took doesn't count as training."""
        self._write({"step": self.last["step"], "tokens": self.last["tokens"], **metrics})
        self.clock = time.monotonic() - self.last["seconds"]

    def _write(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def summary(self) -> dict[str, float]:
        """Return the run's totals and its last held-out metrics."""
        heldout = next((line for line in reversed(self.lines) if "loss" not in line), {})
        totals = {name: float(self.last[name]) for name in ("loss", "tokens", "seconds")}
        return {
            "updates": float(self.last["step"]),
            **totals,
            "tokens_per_second": totals["tokens"] / max(totals["seconds"], 1e-9),
            "peak_memory_bytes": float(peak_memory(self.accelerator.device)),
            **{name: value for name, value in heldout.items() if name not in ("step", "tokens")},
        }


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    if not step or not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [line for line in lines if line["step"] <= step]


def _last_good(out: Path) -> str:
    found = checkpoints(out)
    return f", or go on with --resume from {found[-1].name}" if found else ""


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


def checkpoints(out: Path) -> list[Path]:
    """List the finished checkpoints of a run, oldest first."""
    return sorted(path for path in out.glob("checkpoint-*") if path.suffix != ".partial")


def save_checkpoint(accelerator: Accelerator, out: Path, step: int) -> None:
    """Write the state after an update under a temporary name, rename it, and drop all but the last two."""
    final = out / f"checkpoint-{step:08d}"
    partial = final.with_suffix(".partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        partial.replace(final)
        for old in checkpoints(out)[:-CHECKPOINTS_KEPT]:
            shutil.rmtree(old)


def remove_checkpoints(out: Path) -> None:
    """Delete a finished run's checkpoints."""
    for path in (*out.glob("checkpoint-*"), out / "run.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def restore(accelerator: Accelerator, out: Path, config: TrainConfig, updates: int) -> int:
    """Load the newest checkpoint where --resume asks for it; returns the number of its update, 0 at the start.

    Raises DistilkitError where an option that changes the result differs from the interrupted run's.
    """
    run = {name: plain(value) for name, value in asdict(config).items() if name not in MAY_CHANGE} | {"updates": updates}
    found = checkpoints(out) if config.resume else []
    if not found:
        if accelerator.is_main_process:
            write_text(out / "run.json", json.dumps(run))
        return 0
    before = json.loads((out / "run.json").read_text(encoding="utf-8"))
    for name, value in run.items():
        if before.get(name) != value:
            raise DistilkitError(f"{flag(name)} was {before.get(name)} in the interrupted run, now {value}: --resume needs the same")
    accelerator.load_state(str(found[-1]))
    return int(found[-1].name.removeprefix("checkpoint-"))


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM has come; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals stay with whoever has them
        pass
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
