"""Hold out a part of the training rows for validation: the same rows whenever the same file is read."""

from collections import Counter
from collections.abc import Sequence

from datasets import Dataset, List
from sklearn.model_selection import train_test_split

from distilkit.errors import DistilkitError
from distilkit.tasks.catalogue import Task

SEED = 0  # not --seed: runs with other seeds are scored on the same rows


def split_rows(rows: Dataset, task: Task, source: str) -> tuple[Dataset, Dataset]:
    """Return the training rows and the `task.validation_split` of them that are held out, each in the file's order.

    Every class keeps its share. A held-out row whose text is also in a training row goes to the training rows: it would
    be scored on what was learned by heart.
    Raises DistilkitError if there are too few rows.
    """
    size = round(task.validation_split * len(rows))
    if not 0 < size < len(rows):
        raise DistilkitError(
            f"'{source}' has only {len(rows)} rows, too few for --validation-split {task.validation_split:g}: "
            "give more rows, or a folder with train.* and validation.*"
        )
    held_out = choose(classes(rows, task), size)
    texts = [str(row) for row in zip(*(rows[column][:] for column in task.text), strict=True)]
    known = {text for number, text in enumerate(texts) if number not in held_out}
    held_out = {number for number in held_out if texts[number] not in known} or held_out
    return rows.select([n for n in range(len(rows)) if n not in held_out]), rows.select(sorted(held_out))


def choose(names: Sequence[str], size: int) -> set[int]:
    """Choose about `size` rows by their classes, so that each class keeps its share. A class of one row stays whole."""
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
