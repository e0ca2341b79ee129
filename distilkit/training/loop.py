"""The training loop of `distill` and `finetune`.

Batch n is a function of n. An interrupted run therefore needs only the number of its last update to continue with the
same batches.
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
from distilkit.errors import DistilkitError
from distilkit.options.training import TrainOptions
from distilkit.progress import track
from distilkit.training.devices import autocast_dtype, open_accelerator, return_freed_memory
from distilkit.training.log import TrainingLog
from distilkit.training.objective import Objective
from distilkit.training.resume import restore, save_run_checkpoint
from distilkit.training.sharding import Sharding
from distilkit.training.stopping import EarlyStopping, stop_on_all_processes, stop_signal

RETURN_EVERY = 10  # updates between two returns of freed memory: 1.7 % more CPU time for a sentence encoder
NO_HEAD = "--lr 0 trains a head alone, and this loss has none to train: raise --lr or choose another --objective"


def train(
    objective: Objective,
    batches: Batches,
    options: TrainOptions,
    out: Path,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    early_stopping: EarlyStopping | None = None,
    label: str = "train",
) -> dict[str, float]:
    """Minimise objective(batch)["loss"] in place; return totals and the last held-out metrics.

    Uses AdamW with linear warm-up and linear decay to 0. Writes checkpoints and out/train.jsonl, with a line for each
    update and each evaluation. With options.resume, continues from the newest checkpoint.
    `evaluate` runs before the first update, every `evaluate_every` updates (0: never) and after the last.
    `early_stopping` replaces `evaluate` after the first evaluation. It also holds the best weights and may end the run.
    Raises DivergedError if the loss is not finite. Raises KeyboardInterrupt on SIGINT or SIGTERM, after it has written
    a checkpoint.
    """
    accelerator = open_accelerator(options)
    sharding = Sharding(accelerator, objective, options)
    objective.place_teacher(accelerator.device, autocast_dtype(options.precision), whole=sharding.is_on)
    set_seed(options.seed, device_specific=True)  # processes use different dropout masks
    updates = count_updates(batches, options, accelerator.num_processes)
    optimizer, scheduler = make_optimizer(objective, options, updates)
    if options.compile:
        compile_encoders(objective)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    stateful = [item for item in (scheduler, early_stopping, batches) if hasattr(item, "state_dict")]
    done = restore(accelerator, scheduler, stateful, out, options, updates, batches.fingerprint)
    log = TrainingLog(out, accelerator, options, done)
    objective.train()
    if evaluate and not done:
        log.heldout(evaluate())
    evaluate = early_stopping or evaluate
    with track(label, updates, done=done, unit="updates") as advance, stop_signal() as stopped:
        loader = iter(load(objective, batches, range(done, updates), options, accelerator))
        for step in range(done + 1, updates + 1):
            if early_stopping and early_stopping.should_stop():
                break
            objective.progress((step - 1) / updates)
            micro_batches = [next(loader) for _ in range(options.accumulate)]
            losses = update(accelerator, objective, wrapped, optimizer, options, micro_batches)
            log.update(step, float(scheduler.get_last_lr()[0]), losses)
            scheduler.step()
            last = step == updates
            log_now = last or step % options.log_every == 0
            stop = stop_on_all_processes(accelerator, stopped(), check_now=log_now)
            evaluate_now = evaluate and (last or (evaluate_every and step % evaluate_every == 0))
            save_now = stop or (step % options.checkpoint_every == 0 and not last)
            if evaluate_now or save_now or log_now:
                log.flush(out)
            if evaluate and evaluate_now:
                sharding.gather(wrapped)
                log.heldout(evaluate())
            if save_now:
                save_run_checkpoint(accelerator, stateful, out, step)
            if step % RETURN_EVERY == 0:
                return_freed_memory()
            if stop:
                raise KeyboardInterrupt("a run checkpoint is written")
            advance(1, log.status_line)
    sharding.gather(wrapped)
    return log.close()


def make_optimizer(
    objective: nn.Module, options: TrainOptions, updates: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Make AdamW and its schedule: linear warm-up, then linear decay to 0."""
    groups = parameter_groups(objective, options)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, options.adam_beta2), eps=options.adam_epsilon, fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, math.ceil(options.warmup * updates), updates)


def update(
    accelerator: Accelerator,
    objective: Objective,
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    batches: list[dict[str, Tensor]],
) -> list[dict[str, Tensor]]:
    """Make one update from prepared micro-batches; return the losses and token count of each.

    `wrapped` is the objective as accelerate prepared it. Gradients are averaged over processes only on the last
    micro-batch. The losses of the micro-batches add up to those of the update.
    """
    fractions = token_fractions(accelerator, [objective.token_counts(batch) for batch in batches])
    tokens = [count_tokens(batch) for batch in batches]
    # The code above works on CPU tensors; from here on the CPU never waits for the GPU.
    batches = [send_to_device(batch, accelerator.device, non_blocking=True) for batch in batches]
    losses = []
    for batch, fraction, count in zip(batches, fractions, tokens, strict=True):
        accelerator.sync_gradients = batch is batches[-1]  # DeepSpeed makes the update in this backward()
        with nullcontext() if accelerator.sync_gradients else accelerator.no_sync(wrapped):
            terms = wrapped(batch, fraction)
            if not terms["loss"].requires_grad:
                raise DistilkitError(NO_HEAD)
            accelerator.backward(terms["loss"])
        losses.append({name: term.detach() for name, term in terms.items()} | {"tokens": count})
    if options.max_grad_norm:
        accelerator.clip_grad_norm_(wrapped.parameters(), options.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return losses


def count_tokens(batch: dict[str, Tensor]) -> Tensor:
    """Return the number of tokens in a batch, without padding."""
    ids = batch["input_ids"]
    return batch["attention_mask"].sum() if "attention_mask" in batch else ids.new_tensor(ids.numel())


def token_fractions(accelerator: Accelerator, counts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Return each micro-batch's share of the update's tokens (or rows), by loss term.

    With these weights, a loss is a mean over all tokens of the update, in whichever batch and process they are. With
    several processes, shares are multiplied by their number, since gradients are averaged over processes.
    """
    totals = torch.stack([torch.stack(list(count.values())) for count in counts]).sum(0)  # (terms,)
    if accelerator.num_processes > 1:
        totals = totals.to(accelerator.device, non_blocking=True)
        totals = accelerator.reduce(totals, "sum") / accelerator.num_processes
    totals = totals.clamp(min=1e-9)
    return [{name: value / totals[i] for i, (name, value) in enumerate(count.items())} for count in counts]


def compile_encoders(objective: nn.Module) -> None:
    """Compile the encoders of student and teacher; hooks on an encoder still run."""
    for model in (getattr(objective, "student", None), getattr(objective, "teacher", None)):
        if model is not None:
            model.base_model.forward = torch.compile(model.base_model.forward)


def count_updates(batches: Batches, options: TrainOptions, processes: int) -> int:
    """Return the number of updates of --steps or --epochs."""
    if options.steps:
        return options.steps
    return max(1, math.ceil(options.epochs * batches.per_epoch / (options.accumulate * processes)))


def parameter_groups(objective: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Group the trained parameters by learning rate (encoder or head) and weight decay (none for biases and norms).

    At a rate of 0 the encoder is frozen, so that a head is trained without a backward pass through the encoder.
    Raises DistilkitError if nothing is left to train.
    """
    base = getattr(getattr(objective, "student", None), "base_model", objective)
    encoder = {id(parameter) for parameter in base.parameters()}
    if options.lr == 0 and options.head_lr and base is not objective:
        base.requires_grad_(requires_grad=False)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in encoder, parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise DistilkitError(NO_HEAD)
    head_lr = options.lr if options.head_lr is None else options.head_lr
    return [
        {
            "params": parameters,
            "lr": options.lr if in_encoder else head_lr,
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (in_encoder, decays), parameters in groups.items()
    ]


def load(
    objective: Objective, batches: Batches, steps: range, options: TrainOptions, accelerator: Accelerator
) -> DataLoader[Any]:
    """Return a loader of this process's micro-batches for a range of updates, prepared by the objective."""
    world, rank = accelerator.num_processes, accelerator.process_index
    first, last = steps.start * options.accumulate, steps.stop * options.accumulate
    numbers = range(first * world + rank, last * world, world)
    return DataLoader(
        Subset(batches, numbers),
        batch_size=None,
        collate_fn=cast(Any, objective.prepare),  # with batch_size=None it receives a batch, not a list
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # otherwise the loader draws its seed from the generator of dropout
    )
