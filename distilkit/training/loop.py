"""How to minimise it: the one training loop, for `distill` and `finetune` alike.

A batch is a function of its number, so a run that was interrupted needs to know nothing but the number of its last
update to go on exactly where it was.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from transformers import get_linear_schedule_with_warmup

from distilkit.data.batches import Batches
from distilkit.options.training import TrainOptions
from distilkit.progress import track
from distilkit.training.devices import DTYPES, open_accelerator
from distilkit.training.log import TrainingLog
from distilkit.training.objective import Objective
from distilkit.training.resume import restore, save_run_checkpoint
from distilkit.training.sharding import Sharding
from distilkit.training.stopping import EarlyStopping, stop_on_all_processes, stop_signal


def train(
    objective: Objective,
    batches: Batches,
    config: TrainOptions,
    out: Path,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    best: EarlyStopping | None = None,
    label: str = "train",
) -> dict[str, float]:
    """Minimise objective(batch)["loss"] in place and return what the run came to.

    Writes out/train.jsonl, a line an update (and a line for each evaluate()), and checkpoints; with config.resume it
    goes on from the newest one. AdamW, linear warm-up, then linear to 0. `best` is an evaluate() that also keeps
    weights and may end the run before its last update.
    Raises DivergedError if the loss is not finite, and, after a checkpoint, KeyboardInterrupt on SIGINT and SIGTERM.
    """
    accelerator = open_accelerator(config)
    sharding = Sharding(accelerator, objective, config)
    objective.place_teacher(accelerator.device, DTYPES.get(config.precision), whole=sharding.is_on)
    set_seed(config.seed, device_specific=True)  # each process drops out for itself
    updates = count_updates(batches, config, accelerator.num_processes)
    optimizer, scheduler = make_optimizer(objective, config, updates)
    if config.compile:
        compile_bodies(objective)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    stateful = (scheduler, best, batches if hasattr(batches, "state_dict") else None)
    accelerator.register_for_checkpointing(*(part for part in stateful if part is not None))
    done = restore(accelerator, scheduler, out, config, updates, batches.mark)
    log = TrainingLog(out, accelerator, config, done)
    objective.train()
    if evaluate and not done:
        log.heldout(evaluate())
    evaluate = best or evaluate
    with track(label, updates, done=done, unit="updates") as advance, stop_signal() as stopped:
        micro_batches = iter(load(objective, batches, range(done, updates), config, accelerator))
        for step in range(done + 1, updates + 1):
            if best and best.enough():
                break
            objective.progress((step - 1) / updates)
            taken = [next(micro_batches) for _ in range(config.accumulate)]
            losses = update(accelerator, objective, wrapped, optimizer, config, taken)
            log.update(step, float(scheduler.get_last_lr()[0]), losses)
            scheduler.step()
            last = step == updates
            stop = stop_on_all_processes(accelerator, stopped(), asked=last or step % config.log_every == 0)
            reading = evaluate and (last or (evaluate_every and step % evaluate_every == 0))
            saving = stop or (step % config.checkpoint_every == 0 and not last)
            if reading or saving or last or step % config.log_every == 0:
                log.flush(out)
            if evaluate and reading:
                sharding.gather(wrapped)
                log.heldout(evaluate())
            if saving:
                save_run_checkpoint(accelerator, out, step)
            if stop:
                raise KeyboardInterrupt
            advance(1, log.text)
    sharding.gather(wrapped)
    return log.close()


def make_optimizer(
    objective: nn.Module, config: TrainOptions, updates: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Make AdamW and its schedule."""
    groups = parameter_groups(objective, config)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, config.adam_beta2), eps=config.adam_epsilon, fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, math.ceil(config.warmup * updates), updates)


def update(
    accelerator: Accelerator,
    objective: Objective,
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainOptions,
    batches: list[dict[str, Tensor]],
) -> list[dict[str, Tensor]]:
    """Make one update from micro-batches that are ready() and return their parts of its losses.

    `wrapped` is the objective as accelerate prepared it. Processes share their gradients on the last micro-batch only.
    """
    shares = token_fractions(accelerator, [objective.counts(batch) for batch in batches])
    tokens = [count_tokens(batch) for batch in batches]
    # from here on nothing makes the CPU wait for a GPU
    batches = [send_to_device(batch, accelerator.device, non_blocking=True) for batch in batches]
    readings = []
    for batch, share, count in zip(batches, shares, tokens, strict=True):
        accelerator.sync_gradients = batch is batches[-1]  # DeepSpeed updates at its backward
        with nullcontext() if accelerator.sync_gradients else accelerator.no_sync(wrapped):
            parts = wrapped(batch, share)
            accelerator.backward(parts["loss"])
        readings.append({name: part.detach() for name, part in parts.items()} | {"tokens": count})
    if config.max_grad_norm:
        accelerator.clip_grad_norm_(wrapped.parameters(), config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return readings


def count_tokens(batch: dict[str, Tensor]) -> Tensor:
    """Return how many tokens of a batch are not padding."""
    ids = batch["input_ids"]
    return batch["attention_mask"].sum() if "attention_mask" in batch else ids.new_tensor(ids.numel())


def token_fractions(accelerator: Accelerator, counts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Return what each micro-batch's rows are of all that every process has for the update, by part of the loss.

    So a loss is a mean over the update's tokens, however they lie in batches. The factor is the number of processes,
    over which gradients are averaged.
    """
    totals = torch.stack([torch.stack(list(count.values())) for count in counts]).sum(0)  # (parts,)
    if accelerator.num_processes > 1:
        totals = totals.to(accelerator.device, non_blocking=True)
        totals = accelerator.reduce(totals, "sum") / accelerator.num_processes
    totals = totals.clamp(min=1e-9)
    return [{name: value / totals[i] for i, (name, value) in enumerate(count.items())} for count in counts]


def compile_bodies(objective: nn.Module) -> None:
    """Compile the bodies of the student and the teacher; hooks around a body keep working."""
    for model in (getattr(objective, "student", None), getattr(objective, "teacher", None)):
        if model is not None:
            model.base_model.forward = torch.compile(model.base_model.forward)


def count_updates(batches: Batches, config: TrainOptions, processes: int) -> int:
    """Return how many updates --steps or --epochs come to."""
    if config.steps:
        return config.steps
    return max(1, math.ceil(config.epochs * batches.per_epoch / (config.accumulate * processes)))


def parameter_groups(objective: nn.Module, config: TrainOptions) -> list[dict[str, Any]]:
    """Group the trained parameters: head or body (--head-lr), with weight decay or (biases, norms) without."""
    base = getattr(getattr(objective, "student", None), "base_model", objective)
    body = {id(parameter) for parameter in base.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in body, parameter.ndim > 1), []).append(parameter)
    head_lr = config.lr if config.head_lr is None else config.head_lr
    return [
        {
            "params": parameters,
            "lr": config.lr if in_body else head_lr,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_body, decays), parameters in groups.items()
    ]


def load(
    objective: Objective, batches: Batches, steps: range, config: TrainOptions, accelerator: Accelerator
) -> DataLoader[Any]:
    """Return a loader of the micro-batches that this process takes in those updates, in order and ready()."""
    world, rank = accelerator.num_processes, accelerator.process_index
    first, last = steps.start * config.accumulate, steps.stop * config.accumulate
    numbers = range(first * world + rank, last * world, world)
    return DataLoader(
        Subset(batches, numbers),
        batch_size=None,
        collate_fn=cast(Any, objective.ready),  # of a batch, not of a list, where batch_size is None
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # or it draws a seed from the one that dropout uses
    )
