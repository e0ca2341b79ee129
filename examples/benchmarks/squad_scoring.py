"""Measure how the time of scoring SQuAD divides among tokenisation, the model, and post-processing of its logits.

    python examples/benchmarks/squad_scoring.py CHECKPOINT DATA [squad|squad_v2]

CHECKPOINT is a question-answering model, or any encoder, which then gets a newly initialised head. DATA is a folder as
`--data` reads it. All questions of the validation split are scored. Times are processor seconds, which other work on
the machine hardly changes.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilkit.encoders import checkpoint
from distilkit.evaluation import scoring
from distilkit.evaluation.predictions import SpanPredictions
from distilkit.options.evaluate import EvalOptions
from distilkit.tasks import squad
from distilkit.tasks.catalogue import TASKS, with_training_settings
from distilkit.tasks.rows import read_validation


def main(directory: str, data: str, name: str = "squad") -> None:
    """Print the seconds and shares of each part, and the scores, as JSON."""
    spent: dict[str, float] = {}

    def timed(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # encoding.input_names() reads the signature of forward()
        def run(*words: Any, **keywords: Any) -> Any:
            started = time.process_time()
            try:
                return function(*words, **keywords)
            finally:
                spent[label] = spent.get(label, 0.0) + time.process_time() - started

        return run

    task = TASKS[name]
    model = checkpoint.open_model(directory, "question-answering", new_head=True)
    tokenizer = checkpoint.open_tokenizer(directory)
    splits = read_validation(task, Path(data))
    options = with_training_settings(task, EvalOptions(models=(directory,), task=name, data=Path(data)), directory)
    model.forward = timed("model", model.forward)
    squad.encode = timed("tokenising", squad.encode)
    squad.best_spans = timed("post-processing", squad.best_spans)
    squad.best_answers = timed("post-processing", squad.best_answers)
    SpanPredictions.score = timed("post-processing", SpanPredictions.score)  # type: ignore[method-assign]
    score = timed("all", scoring.score)
    scores = score(model, tokenizer, task, splits, options, name=directory)
    shares = {label: round(seconds / spent["all"], 4) for label, seconds in spent.items()}
    rows = {prefix: len(split) for prefix, split in splits.items()}
    print(json.dumps({"questions": rows, "processor_seconds": spent, "shares": shares, "scores": scores}, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
