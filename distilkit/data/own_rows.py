"""What a user's own rows are: which columns hold text and label, and whether validation rows must be held out.

Nothing here loads PyTorch, so that a mistake is reported at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

from distilkit.data import conll
from distilkit.data.readers import file_type
from distilkit.data.split_files import find_file, split_files
from distilkit.data.tables import Row, column_names, read_table
from distilkit.errors import DistilkitError
from distilkit.hub import nearest
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.predict import PREDICTION, PROBABILITY, PredictOptions
from distilkit.options.tasks import TaskOptions
from distilkit.record import read_biography

O = TypeVar("O", bound=TaskOptions)  # noqa: E741 - the options of a command
VALIDATION_SPLIT = 0.1  # of the rows, where no file has validation rows
SAMPLE = 2000  # rows from which columns are guessed
FEW_LABELS = 20  # a column with at most this many different values, or with three rows per value, may hold labels
LABEL_LENGTH = 60  # characters; longer cells are text
PAIRS = (  # columns of two texts that belong together
    *(("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("text1", "text2")),
    *(("text_1", "text_2"), ("text_a", "text_b"), ("premise", "hypothesis"), ("question1", "question2")),
    *(("question", "sentence"), ("question", "passage"), ("query", "passage"), ("query", "document")),
)
TEXT_NAMES = (
    *("text", "sentence", "message", "body", "content", "comment", "review", "document", "utterance", "description"),
    *("question", "query", "title", "subject"),
)
LABEL_NAMES = (
    *("label", "labels", "category", "class", "target", "intent", "sentiment", "topic", "emotion", "tag", "tags"),
    *("score", "rating", "stars", "y"),
)
TAG_NAMES = (conll.TAGS, "tags", "labels", "pos_tags")
FLAGS = {"0", "1", "0.0", "1.0", "true", "false"}


def with_recorded_task(options: O, model: str) -> O:
    """Return the options with the task, rows and columns that a model was fine-tuned on, where none are given.

    Raises DistilkitError if the model's records name no task, or if its rows are gone.
    """
    trained = recorded_task(model)
    task = options.task or ("custom" if options.data and trained.get("task", "custom") == "custom" else None)
    task = task or trained.get("task")
    if task is None:
        hint = "" if Path(model).exists() else nearest(Path(model))
        raise DistilkitError(f"'{model}'{hint} has no finetune record: name a task with --task, or give --data")
    options = replace(options, task=task)
    if trained.get("task") != task:
        return with_own_rows(options)
    columns = {name: trained.get(name) for name in ("label", "kind", "metric")} | {
        "text": tuple(trained.get("text") or ())
    }
    rows = {name: trained.get(name) for name in ("data", "validation_split")}
    same_rows = options.data is None or str(options.data.absolute()) == str(trained.get("data"))
    recorded = (columns if task == "custom" else {}) | (rows if same_rows else {})
    if same_rows and (place := rows["data"]) and Path(place).is_absolute() and not Path(place).exists():
        raise DistilkitError(f"'{model}' was fine-tuned on '{place}', which no longer exists: give --data")
    return with_own_rows(
        replace(options, **{name: value for name, value in recorded.items() if value and not getattr(options, name)})
    )


def recorded_task(model: str) -> dict[str, Any]:
    """Return the options of a checkpoint's last fine-tuning, {} without one."""
    return next((done.config for done in reversed(read_biography(model)) if done.command == "finetune"), {})


def with_own_rows(options: O) -> O:
    """Return the options of --task custom with columns, --kind tokens and --validation-split filled in.

    --task custom itself is filled in if there are rows and no task. What is not given is guessed from the rows. Other
    tasks and data sets on the hub keep what was given.
    Raises DistilkitError for all columns that do not exist, if one is named twice, and if one cannot be guessed.
    """
    data = options.data
    if options.task is None and data is not None:
        options = replace(options, task="custom")
    if options.task != "custom" or data is None:
        return options
    check_distinct(options.text or (), options.label)
    if not data.exists():
        return options
    training = isinstance(options, FinetuneOptions)
    kind = options.kind or ("tokens" if holds_sentences(data) else None)
    splits = ("train",) if training else ("validation", "test", "train")
    split = next((name for name in splits if split_files("custom", kind or "", data, name)), splits[0])
    path = find_file("custom", kind or "", data, split)
    names, rows = read_sample(path)
    check_given(options, path, names)
    text, label = options.text, options.label
    if kind == "tokens" or (kind is None and not text and not label and _lists(rows, conll.WORDS)):
        kind, text, label = "tokens", text or (conll.WORDS,), label or _tag_column(rows)
    label = label or guess_label(path, names, rows, text or ())
    text = text or guess_text(path, names, rows, label)
    held_out = options.validation_split
    if training and not has_validation(data, kind or ""):
        held_out = held_out or VALIDATION_SPLIT
    elif training and held_out:
        raise DistilkitError(f"--validation-split has no effect, as '{data}' has validation rows: remove the option")
    return replace(options, kind=kind, text=text, label=label, validation_split=held_out)


def with_text_columns(options: PredictOptions) -> PredictOptions:
    """Return the options with the text columns: those given, else those of the training, else guessed from the rows.

    Raises DistilkitError if the file has no such columns, if one is named twice, or if the output adds one of its name.
    """
    check_distinct(options.text or ())
    names, rows = read_sample(options.data)
    if taken := [name for name in (PREDICTION, PROBABILITY) if name in names]:
        raise DistilkitError(f"'{options.data}' has a column '{taken[0]}', which the output adds: rename it")
    trained = recorded_task(options.model)
    text = options.text or tuple(trained.get("text") or ())
    if not options.text and not set(text) <= set(names):
        text = ()
    check_names(text, names, options.data)
    if not text and (holds_sentences(options.data) or _only_words(names, rows)):
        text = (conll.WORDS,)
    return replace(options, text=text or guess_text(options.data, names, rows, str(trained.get("label") or "")))


def has_validation(data: Path, kind: str) -> bool:
    """Say whether a folder has validation or test rows of its own."""
    return data.is_dir() and any(split_files("custom", kind, data, split) for split in ("validation", "test"))


def holds_sentences(data: Path) -> bool:
    """Say whether rows are in CoNLL files."""
    if data.is_dir():
        found = [path for split in ("train", "validation", "test") for path in split_files("custom", "", data, split)]
        return not found and bool(split_files("custom", "tokens", data, "train"))
    return file_type(data) in conll.ENDINGS


def read_sample(path: Path) -> tuple[list[str], list[Row]]:
    """Return the columns of a file and its first rows. Raises DistilkitError if it has none."""
    sentences = file_type(path) in conll.ENDINGS
    rows = list(islice(conll.read_sentences(path) if sentences else read_table(path), SAMPLE))
    if not rows:
        raise DistilkitError(f"'{path}' has no rows: give another --data")
    return conll.column_names(path) if sentences else column_names(path), rows


def check_given(options: TaskOptions, path: Path, names: Sequence[str]) -> None:
    """Raise DistilkitError for all columns of --text and --label that a file lacks."""
    label = options.label or ""
    labels = [label] if not label or label in names else label.split(",")
    if len(labels) > 1 and not set(labels) & set(names):  # names of the places in vectors of 0 and 1
        labels = []
    check_names([*(options.text or ()), *filter(None, labels)], names, path)


def check_distinct(text: Sequence[str], label: str | None = None) -> None:
    """Raise DistilkitError if --text and --label name a column twice."""
    labels = label.split(",") if label and label not in text else [label]
    given = [*text, *filter(None, labels)]
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise DistilkitError(f"column '{twice}' is named twice: check --text and --label")


def check_names(wanted: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Raise DistilkitError for all columns that a file lacks."""
    if lacking := [name for name in wanted if name not in names]:
        listed = ", ".join(f"'{name}'" for name in lacking)
        raise DistilkitError(f"no column {listed} in '{path}' (it has {', '.join(names)}): check --text and --label")


def guess_label(path: Path, names: Sequence[str], rows: Sequence[Row], text: Sequence[str]) -> str:
    """Return the label column or columns: the one with a usual name, the only one with few values, or all of 0 and 1.

    Raises DistilkitError if none of these rules finds it.
    """
    free = [name for name in names if name not in text]
    for usual in LABEL_NAMES:
        for name in free:
            if name.lower() == usual or name.lower().endswith("_" + usual):
                return name
    candidates = [name for name in free if _may_be_label(_values(rows, name))]
    flags = [name for name in candidates if {str(value).lower() for value in _values(rows, name)} <= FLAGS]
    if len(candidates) == 1 or (flags and flags == candidates):
        return ",".join(candidates)
    found = f"it may be {' or '.join(candidates)}" if candidates else f"the columns are {', '.join(names)}"
    raise DistilkitError(f"cannot tell which column of '{path}' holds the labels ({found}): name it with --label")


def guess_text(path: Path, names: Sequence[str], rows: Sequence[Row], label: str) -> tuple[str, ...]:
    """Return the column of texts: a usual pair of names, or the longest texts, first among usual names.

    Raises DistilkitError if no column holds text.
    """
    free = [name for name in names if name not in (label, *label.split(","))]
    lower = {name.lower(): name for name in free}
    for pair in PAIRS:
        if set(pair) <= lower.keys():
            return tuple(lower[name] for name in pair)
    texts = [name for name in free if _may_be_text(_values(rows, name))]
    usual = [name for name in texts if name.lower() in TEXT_NAMES]
    if not texts:
        raise DistilkitError(
            f"cannot tell which column of '{path}' holds the texts (it has {', '.join(names)}): name it with --text"
        )
    return (max(usual or texts, key=lambda name: mean(map(len, _values(rows, name)))),)


def _values(rows: Sequence[Row], name: str) -> list[Any]:
    return [value for row in rows if (value := row.get(name)) is not None]


def _may_be_label(values: Sequence[Any]) -> bool:
    if any(isinstance(value, dict) for value in values):
        return False
    if any(isinstance(value, list) for value in values):
        return True
    distinct = {str(value).strip() for value in values}
    repeated = 2 * len(distinct) < len(values) if len(distinct) <= FEW_LABELS else 3 * len(distinct) <= len(values)
    return len(distinct) > 1 and repeated and max(map(len, distinct)) <= LABEL_LENGTH


def _may_be_text(values: Sequence[Any]) -> bool:
    words = [value for value in values if isinstance(value, str) and any(map(str.isalpha, value))]
    return bool(values) and 2 * len(words) >= len(values) and all(isinstance(value, str) for value in values)


def _lists(rows: Sequence[Row], name: str) -> bool:
    values = _values(rows, name)
    return bool(values) and all(isinstance(value, list) for value in values)


def _only_words(names: Sequence[str], rows: Sequence[Row]) -> bool:
    """Say whether rows hold lists of words, and no column of texts."""
    return _lists(rows, conll.WORDS) and not any(_may_be_text(_values(rows, name)) for name in names)


def _tag_column(rows: Sequence[Row]) -> str:
    return next((name for name in TAG_NAMES if _values(rows, name)), conll.TAGS)
