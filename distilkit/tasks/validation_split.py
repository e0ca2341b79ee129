"""Hold out a part of the training rows for validation: the same rows whenever the same file is read."""

from collections import Counter
from collections.abc import Sequence

from datasets import Dataset, List
from sklearn.model_selection import train_test_split

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import Task

SEED = 0  # not --seed: runs with other seeds are scored on the same rows


def split_rows(rows: Dataset, task: Task, source: str) -> tuple[Dataset, Dataset]:
    """Return the training rows and those that are held out, `task.validation_split` of the texts, in the file's order.

    Every class keeps its share. Rows with the same text stay together, so that no held-out text is also a training
    text.
    Raises DistilkitError if there are too few texts.
    """
    texts = [str(row) for row in zip(*(rows[column][:] for column in task.text), strict=True)]
    distinct = dict(zip(texts, classes(rows, task), strict=True))
    size = round(task.validation_split * len(distinct))
    if not 0 < size < len(distinct):
        raise DistilkitError(
            f"'{source}' has only {len(distinct)} different texts, too few for --validation-split "
            f"{task.validation_split:g}: give more rows, or a folder with train.* and validation.*"
        )
    chosen = choose(list(distinct.values()), size)
    held_out = {text for number, text in enumerate(distinct) if number in chosen}
    train, validation = (
        [number for number, text in enumerate(texts) if (text in held_out) is wanted] for wanted in (False, True)
    )
    return rows.select(train), rows.select(validation)


def choose(names: Sequence[str], size: int) -> set[int]:
    """Choose about `size` texts by their classes, each of which keeps its share. A class of one text stays out."""
    counts = Counter(names)
    numbers = [number for number, name in enumerate(names) if counts[name] > 1]
    kinds = {names[number] for number in numbers}
    if len(kinds) < 2:
        return set(train_test_split(range(len(names)), test_size=size, random_state=SEED)[1])
    size = min(max(size, len(kinds)), len(numbers) - len(kinds))
    shares = [names[number] for number in numbers]
    return set(train_test_split(numbers, test_size=size, random_state=SEED, stratify=shares)[1])


def classes(rows: Dataset, task: Task) -> list[str]:
    """Return the class of each row; the same for all if labels are lists or measured numbers."""
    column = rows.features[task.label]
    if isinstance(column, List) or len(rows.unique(task.label)) > len(rows) / 3:
        return [""] * len(rows)
    return [str(label) for label in rows[task.label]]
