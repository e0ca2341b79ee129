"""Learning rate, epochs and warm-up of a fine-tuning that does not give them."""

import math
from dataclasses import replace
from typing import NamedTuple

from distilkit.options.finetune import FinetuneOptions
from distilkit.tasks.catalogue import Task

BASE_WIDTH, BASE_LAYERS = 768, 12  # of BERT-base, for which the published settings were found
MAX_RATE_FACTOR = 15.0  # 2e-5 becomes at most 3e-4
MIN_ROWS_SEEN = 3000  # about 100 updates of 32 rows; the published epochs of every GLUE task are more
WARMUP, CHANGED_WARMUP = 0.06, 0.1


class Schedule(NamedTuple):
    """A peak learning rate, a number of epochs, and the share of the updates in which the rate rises."""

    lr: float
    epochs: float
    warmup: float


def default_schedule(task: Task, *, width: int, layers: int, rows: int) -> Schedule:
    """Return the published settings of a task, adapted to an encoder that is narrower than BERT-base and to few rows.

    - Learning rate: the published rate × (768 · 768 · 12) / (width · width · layers), at most × 15. The fewer weights
      the layers have, the higher the rate. For a width of 768 or more, it is the published rate. BERT's authors
      tuned their small models (README of google-research/bert, "Smaller BERT Models") with rates from 3e-5 to 3e-4.
    - Epochs: the published number, or more until 3,000 rows are read. Few rows need more epochs: Mosbach et al. 2021
      (arXiv 2006.04884), Zhang et al. 2021 (arXiv 2006.05987).
    - Warm-up: 6 % of the updates; 10 %, as Mosbach et al. advise, if another of the settings is not as published.

    docs/results.md ("Defaults of finetune") compares the result with a grid.
    """
    factor = 1.0 if width >= BASE_WIDTH else BASE_WIDTH**2 * BASE_LAYERS / (width**2 * layers)
    lr = float(f"{task.lr * min(max(factor, 1.0), MAX_RATE_FACTOR):.2g}")
    epochs = max(task.epochs, float(math.ceil(MIN_ROWS_SEEN / rows)))
    return Schedule(lr, epochs, WARMUP if (lr, epochs) == (task.lr, task.epochs) else CHANGED_WARMUP)


def with_schedule(options: FinetuneOptions, schedule: Schedule) -> FinetuneOptions:
    """Return the options with the schedule's value for every setting that was not given."""
    given = {name: getattr(options, name) for name in schedule._fields}
    return replace(
        options, **{name: value if value is not None else getattr(schedule, name) for name, value in given.items()}
    )
