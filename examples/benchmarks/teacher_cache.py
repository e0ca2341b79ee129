"""What does a teacher cache cost and gain? The same student, text and number of updates, with and without.

    python examples/benchmarks/teacher_cache.py STUDENT --corpus TEXT --heldout TEXT [--updates 150] [--batch 8] …

Each arm prints a line, a JSON object, when it is through: the teacher asked at every update with masks drawn anew
(dynamic) and with a mask a block (static), and caches of K sampled tokens a position (sampled-K), all with the soft
targets at masked tokens and masked LM. Then a step of each kind is timed in turn, round by round, on the same blocks:
so the ratios hold on a machine whose speed drifts.
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
    """Print a line an arm, then a line for the steps."""
    options = parse()
    with tempfile.TemporaryDirectory() as directory:
        config = DistillOptions(
            student=options.student,
            corpus=options.corpus,
            heldout=options.heldout,
            output=Path(directory) / "out",
            steps=options.updates,
            batch_size=options.batch,
            seq_length=options.length,
            alpha_cos=0.0,
            ce_positions="masked",
            evaluate_every=10**9,
            checkpoint_every=10**9,
        )
        bench = Bench(config, options.blocks, Path(directory))
        for arm in options.arms:
            print(json.dumps({"arm": arm, **bench.run(arm)}), flush=True)
        if options.rounds:
            print(json.dumps(bench.steps(options.rounds)), flush=True)


class Bench:
    """The models, text and caches that the arms share."""

    def __init__(self, config: DistillOptions, blocks: int, directory: Path) -> None:
        self.config, self.directory = config, directory
        self.tokenizer = checkpoint.open_tokenizer(config.student)
        batches, heldout = read_batches(config, self.tokenizer, config.seed)
        self.blocks = [batches.rows[number] for number in range(min(blocks, len(batches.rows)))]
        self.teacher = open_teacher(config, self.student(), self.tokenizer)
        self.collate = batches.collate
        self.evaluator = HeldoutEvaluator(heldout, self.teacher)

    def student(self) -> Any:
        """Open the student anew."""
        return checkpoint.open_model(self.config.student, "masked-lm")

    def cached(self, arm: str) -> tuple[DistillOptions, TeacherCache]:
        """Return a cache, filled, and the config that uses it, for an arm like sampled-64."""
        size = int(arm.removeprefix("sampled-"))
        config: DistillOptions = replace(self.config, teacher_cache=self.directory / arm, cache_size=size)
        batches = Batches(self.blocks, self.collate, batch_size=config.batch_size, seed=config.seed)
        return config, fill_cache(config, self.student(), self.tokenizer, batches, self.evaluator)

    def make(self, arm: str) -> tuple[DistillOptions, Objective, Batches, TeacherCache | None]:
        """Return an arm's config, objective and batches, and its cache where it has one."""
        rows: Sequence[Any] = self.blocks
        settings, collate = {"batch_size": self.config.batch_size, "seed": self.config.seed}, self.collate
        if "-" in arm:
            config, cache = self.cached(arm)
            return config, make_objective(config, self.student(), None), CachedBatches(cache, **settings), cache
        if arm == "static":
            _, cache = self.cached("sampled-8")  # for its masks
            rows, collate = [cache.mask(block) for block in range(len(cache))], cache.collate
        objective = make_objective(self.config, self.student(), self.teacher)
        return self.config, objective, Batches(rows, collate, **settings), None

    def run(self, arm: str) -> dict[str, float]:
        """Train one arm and return what it came to."""
        config, objective, batches, cache = self.make(arm)
        out = self.directory / f"{arm}-out"
        out.mkdir()
        metrics = train(
            objective, batches, config, out, evaluate=lambda: self.evaluator.evaluate(objective.student), label=arm
        )
        names = ("heldout_loss", "heldout_agreement", "tokens_per_second", "seconds")
        costs = {} if cache is None else cache.metrics(config.batch_size)
        return {name: metrics[name] for name in names} | costs

    def steps(self, rounds: int) -> dict[str, Any]:
        """Time forward and backward, with the making of the batch, for each kind in turn."""
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
    parser.add_argument("student", help="student that distilkit init made")
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
