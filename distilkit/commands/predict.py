"""`predict`: label new rows with a fine-tuned classifier or tagger."""

import csv
import io
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilkit.claims import claim_files
from distilkit.class_scores import label_in_name
from distilkit.data.conll import ENDINGS as CONLL
from distilkit.data.conll import read_sentences
from distilkit.data.own_rows import with_text_columns
from distilkit.data.readers import file_type
from distilkit.data.tables import read_table
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation.label_predictions import LabelPredictions
from distilkit.evaluation.predictions import SpanPredictions
from distilkit.evaluation.predictions import predict as predict_rows
from distilkit.evaluation.ranking import RankingPredictions
from distilkit.evaluation.scoring import open_for_task
from distilkit.evaluation.tags import TagPredictions
from distilkit.files import write_text
from distilkit.options.evaluate import EvalOptions
from distilkit.options.predict import PredictOptions
from distilkit.progress import say
from distilkit.record import Record, json_text, record
from distilkit.tasks.catalogue import resolve
from distilkit.tasks.labels import output_kind
from distilkit.tasks.rows import read_rows
from distilkit.training.devices import device

PREDICTION, PROBABILITY = "prediction", "probability"  # columns of the file


def predict(options: PredictOptions) -> Record:
    """Write every row of --data with what a model predicts for it.

    Columns are added: `prediction`, `probability` (of a class; for several labels of each) and, in a table, the
    probability of each label. The metrics are the rows per second and the share of each label.
    Raises DistilkitError if the model is no classifier or tagger, or if the rows have no such text.
    """
    given, options = options, with_text_columns(options)
    if options.text != given.text:
        say(f"text: {', '.join(options.text or ())}")
    used = eval_options(options)
    with claim_files({options.output: "-o"}):
        start = time.perf_counter()
        found = run(options, used)
        write_rows(options, found)
        seconds = time.perf_counter() - start
    rows = len(found.predicted)
    speed = {"rows": float(rows), "rows_per_second": rows / seconds}
    return record("predict", options, speed | shares(found), given=given, device=str(device()))


def eval_options(options: PredictOptions) -> EvalOptions:
    """Return the options with which an eval on these rows would run; it needs a label, which is not read."""
    kind = output_kind(checkpoint.open_config(options.model))
    return EvalOptions(
        models=(options.model,),
        task="custom",
        data=options.data,
        text=options.text,
        label="label",
        kind=kind if kind == "tokens" else None,
        max_length=options.max_length,
        long=options.long,
        batch_size=options.batch_size,
        seed=options.seed,
    )


def run(options: PredictOptions, used: EvalOptions) -> LabelPredictions | TagPredictions:
    """Return a model's predictions for the rows."""
    (task,) = resolve(used)
    opened = open_for_task(options.model, task, used)
    rows = read_rows(opened.task, options.data, "train", labelled=False)
    found = predict_rows(
        opened.model, opened.tokenizer, opened.task, rows, opened.settings, order=opened.order, name=options.model
    )
    if isinstance(found, SpanPredictions | RankingPredictions):
        raise DistilkitError(f"'{options.model}' is not a classifier or tagger: use eval --write-predictions")
    return found


def shares(found: LabelPredictions | TagPredictions) -> dict[str, float]:
    """Return the share of each predicted class among the rows; of tags and of several labels nothing."""
    if isinstance(found, TagPredictions) or found.task.kind != "classification":
        return {}
    counts = Counter(found.predicted.tolist())
    return {
        f"share/{label_in_name(label)}": counts[number] / len(found.predicted)
        for number, label in enumerate(found.task.labels)
    }


def write_rows(options: PredictOptions, found: LabelPredictions | TagPredictions) -> None:
    """Write the rows of the file with their predictions, as JSON lines or as a table."""
    ending = file_type(options.output)
    if ending == ".jsonl":
        rows = with_predictions(options.data, found, nested=True)
        write_text(options.output, "".join(json_text(row, indent=None) + "\n" for row in rows))
        return
    text = io.StringIO()
    table = with_predictions(options.data, found, nested=False)
    first = next(table)
    writer = csv.DictWriter(text, list(first), delimiter="\t" if ending == ".tsv" else ",", extrasaction="ignore")
    writer.writeheader()
    writer.writerow(first)
    writer.writerows(table)
    write_text(options.output, text.getvalue())


def with_predictions(data: Path, found: LabelPredictions | TagPredictions, *, nested: bool) -> Iterator[dict[str, Any]]:
    """Yield each row of a file with its prediction; `nested` for JSON, else lists and probabilities become columns.

    Raises DistilkitError if the file has a column of that name.
    """
    rows = read_sentences(data) if file_type(data) in CONLL else read_table(data)
    for number, row in enumerate(rows):
        if taken := {PREDICTION, PROBABILITY} & row.keys():
            raise DistilkitError(f"'{data}' has a column '{min(taken)}', which the output adds: rename it")
        added = found.row(number)
        yield row | (added if nested else as_columns(added))


def as_columns(added: dict[str, Any]) -> dict[str, Any]:
    """Return a prediction as cells of a table: lists apart by spaces, a column for each label's probability."""
    each = added.pop("probabilities", {})
    cells = {name: " ".join(value) if isinstance(value, list) else value for name, value in added.items()}
    return cells | {f"{PROBABILITY}_{label}": value for label, value in each.items()}
