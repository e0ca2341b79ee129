"""The default learning rate, epochs and warm-up of finetune."""

from pathlib import Path

import pytest

from distilkit.options.finetune import FinetuneOptions
from distilkit.tasks.catalogue import GLUE, TASKS, Task
from distilkit.tasks.schedule import Schedule, default_schedule, with_schedule

GLUE_ROWS = {  # of the training splits, from the data set's page on the hub
    "cola": 8551, "sst2": 67349, "mrpc": 3668, "qqp": 363846, "stsb": 5749, "mnli": 392702, "qnli": 104743,
    "rte": 2490, "wnli": 635,
}  # fmt: skip


@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
@pytest.mark.parametrize(("width", "layers"), [(768, 12), (768, 6), (1024, 24)])
def test_base_models_get_the_published_settings(task: Task, width: int, layers: int) -> None:
    """On GLUE, an encoder as wide as BERT-base or wider is trained exactly as published."""
    found = default_schedule(task, width=width, layers=layers, rows=GLUE_ROWS[task.name])
    assert found == (task.lr, task.epochs, 0.06)


@pytest.mark.parametrize(
    ("width", "layers", "rate"),
    [
        (384, 12, 8e-5),  # (768 / 384)^2 = 4 times 2e-5
        (384, 6, 1.6e-4),  # a quarter of the width's square, half of the layers
        (384, 3, 3e-4),  # 16 times, but 15 at most
        (128, 2, 3e-4),
        (512, 48, 2e-5),  # never below the published rate
    ],
)
def test_narrow_models_get_a_higher_rate(width: int, layers: int, rate: float) -> None:
    """The rate grows as the weights of the layers become fewer than BERT-base's, up to 15 times."""
    found = default_schedule(TASKS["sst2"], width=width, layers=layers, rows=67349)
    assert found.lr == pytest.approx(rate)
    assert found.epochs == 3


def test_few_rows_get_more_epochs() -> None:
    """However few the rows are, the model sees 3,000 of them: 10 epochs of 320 rows, 3 of 1,000 and more."""
    epochs = [default_schedule(TASKS["sst2"], width=768, layers=12, rows=rows).epochs for rows in (1, 320, 1000, 5000)]
    assert epochs == [3000, 10, 3, 3]


def test_warm_up_is_longer_if_something_is_adapted() -> None:
    """6 % of the updates with published settings, 10 % otherwise."""
    sizes = [(768, 5000), (384, 5000), (768, 100)]
    found = [default_schedule(TASKS["sst2"], width=width, layers=12, rows=rows).warmup for width, rows in sizes]
    assert found == [0.06, 0.1, 0.1]


def test_given_values_win() -> None:
    """A value that is given is used, even 0; the schedule fills in the rest."""
    options = FinetuneOptions(model="m", task="sst2", output=Path("o"), lr=0.0, epochs=1.5)
    used = with_schedule(options, Schedule(1e-4, 10.0, 0.1))
    assert (used.lr, used.epochs, used.warmup) == (0.0, 1.5, 0.1)
