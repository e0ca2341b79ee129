"""Measure the cost and gain of a teacher cache: same student, text and number of updates, with and without.

    python examples/benchmarks/teacher_cache.py STUDENT --corpus TEXT --heldout TEXT [--updates 150] [--batch 8] …

Each arm prints a JSON object on one line when it is finished. Arms are: the teacher runs at every update, with new
masks (dynamic) or with one fixed mask per block (static); and caches of K sampled tokens per position (sampled-K). All
use soft targets at masked tokens and masked LM. Then the steps of each kind are timed in alternation on the same
blocks, so that the ratios do not depend on drift of the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distilkit.data.batches import Batches
from distilkit.data.blocks import read_batches
from distilkit.distillation.heldout import HeldoutEvaluator
from distilkit.distillation.teacher import open_teacher
from distilkit.distillation.teacher_cache import CachedBatches, TeacherCache, fill_cache
from distilkit.distillation.text_objective import make_objective
from distilkit.encoders import checkpoint
from distilkit.options.distill import DistillOptions
from distilkit.training.devices import keep_freed_memory
from distilkit.training.loop import train
from distilkit.training.objective import Objective


def main() -> None:
    """Print a line per arm, then a line for the steps."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as directory:
        options = DistillOptions(
            student=arguments.student,
            corpus=arguments.corpus,
            heldout=arguments.heldout,
            output=Path(directory) / "out",
            steps=arguments.updates,
            batch_size=arguments.batch,
            lr=5e-4,
            seq_length=arguments.length,
            alpha_cos=0.0,
            ce_positions="masked",
            evaluate_every=10**9,
            checkpoint_every=10**9,
        )
        bench = Bench(options, arguments.blocks, Path(directory))
        for arm in arguments.arms:
            print(json.dumps({"arm": arm, **bench.run(arm)}), flush=True)
        if arguments.rounds:
            print(json.dumps(bench.steps(arguments.rounds)), flush=True)


class Bench:
    """The models, text and caches that the arms share."""

    def __init__(self, options: DistillOptions, blocks: int, directory: Path) -> None:
        self.options, self.directory = options, directory
        self.tokenizer = checkpoint.open_tokenizer(options.student)
        batches, heldout = read_batches(options, self.tokenizer, options.seed)
        self.blocks = [batches.rows[number] for number in range(min(blocks, len(batches.rows)))]
        self.teacher = open_teacher(options, self.student(), self.tokenizer)
        self.collate = batches.collate
        self.evaluator = HeldoutEvaluator(heldout, self.teacher)

    def student(self) -> Any:
        """Open the student again."""
        return checkpoint.open_model(self.options.student, "masked-lm")

    def cached(self, arm: str) -> tuple[DistillOptions, TeacherCache]:
        """Return a filled cache and the options that use it, for an arm such as sampled-64."""
        size = int(arm.removeprefix("sampled-"))
        options: DistillOptions = replace(self.options, teacher_cache=self.directory / arm, cache_size=size)
        batches = Batches(self.blocks, self.collate, batch_size=options.batch_size, seed=options.seed)
        return options, fill_cache(options, self.student(), self.tokenizer, batches, self.evaluator)

    def make(self, arm: str) -> tuple[DistillOptions, Objective, Batches, TeacherCache | None]:
        """Return the options, objective and batches of an arm, and its cache if it has one."""
        rows: Sequence[Any] = self.blocks
        common, collate = {"batch_size": self.options.batch_size, "seed": self.options.seed}, self.collate
        if "-" in arm:
            options, cache = self.cached(arm)
            return options, make_objective(options, self.student(), None), CachedBatches(cache, **common), cache
        if arm == "static":
            _, cache = self.cached("sampled-8")  # for its masks
            rows, collate = [cache.mask(block) for block in range(len(cache))], cache.collate
        objective = make_objective(self.options, self.student(), self.teacher)
        return self.options, objective, Batches(rows, collate, **common), None

    def run(self, arm: str) -> dict[str, float]:
        """Train one arm; return its metrics."""
        options, objective, batches, cache = self.make(arm)
        out = self.directory / f"{arm}-out"
        out.mkdir()
        metrics = train(
            objective, batches, options, out, evaluate=lambda: self.evaluator.evaluate(objective.student), label=arm
        )
        names = ("heldout_loss", "heldout_agreement", "tokens_per_second", "seconds")
        costs = {} if cache is None else cache.metrics(options.batch_size)
        return {name: metrics[name] for name in names} | costs

    def steps(self, rounds: int) -> dict[str, Any]:
        """Time the batch, forward and backward passes of each kind in alternation."""
        keep_freed_memory()
        arms = {arm: self.make(arm)[1:3] for arm in ("dynamic", "sampled-8", "sampled-64")}
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for number in range(rounds + 2):
            for arm, (objective, batches) in arms.items():
                started = time.perf_counter()
                objective(batches[number % batches.per_epoch])["loss"].backward()
                objective.zero_grad()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if number >= 2:  # the first two warm up
                    seconds[arm].append(time.perf_counter() - started)
        gains = {
            arm: statistics.median(a / b for a, b in zip(seconds["dynamic"], taken, strict=True))
            for arm, taken in seconds.items()
        }
        return {
            "step_seconds": {arm: statistics.median(taken) for arm, taken in seconds.items()},
            "times_faster": gains,
        }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("student", help="student from distilkit init")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=600, help="blocks of the corpus to train on")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of timed steps")
    parser.add_argument("--arms", nargs="*", default=["dynamic", "static", "sampled-8", "sampled-64"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
