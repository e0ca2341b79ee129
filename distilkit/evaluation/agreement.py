"""Agreement: how much like its teacher a student behaves on a text without labels, and where it does least."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.blocks import pack_documents
from distilkit.data.masking import make_collate
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation import calibration, metrics, slices
from distilkit.evaluation.calibration import Bin
from distilkit.evaluation.paired_outputs import (
    Opened,
    Pair,
    PairedOutputs,
    at_masked_tokens,
    classify,
    find_teacher,
    to_texts,
    trained_length,
)
from distilkit.evaluation.slices import Slice
from distilkit.files import is_writable, write_text
from distilkit.options.distill import DistillOptions
from distilkit.options.tasks import EvalOptions
from distilkit.progress import warn
from distilkit.tasks.labels import match_label_order, output_names
from distilkit.training.devices import is_main_process

EXAMPLES = 5  # of each slice


def agree(config: EvalOptions) -> dict[str, float]:
    """Compare every checkpoint with its teacher on --agreement's text; write what --examples and --plot name.

    With several checkpoints, a metric's name begins with the checkpoint's position.
    Raises DistilkitError where two can't be compared or a file can't be written, before anything long begins.
    """
    check_files(config)
    pairs = [find_teacher(name, config.against) for name in config.models]
    merged: dict[str, float] = {}
    examples: list[dict[str, Any]] = []
    curves: dict[str, Sequence[Bin]] = {}
    for position, pair in enumerate(pairs):
        found = ask(pair, config)
        ranked, bins = slices.rank(found.misses, found.families), reliabilities(found)
        prefix = f"{position}/" if len(pairs) > 1 else ""
        merged |= {prefix + metric: value for metric, value in measure(found, ranked, bins).items()}
        examples += [{"model": pair.student, "against": pair.teacher, **entry} for entry in worst(found, ranked)]
        curves |= {f"{prefix}{whose} confidence": entries for whose, entries in bins.items()}
    if is_main_process():
        write_files(config, examples, curves)
    return merged


def check_files(config: EvalOptions) -> None:
    """Refuse --examples and --plot where they could not be written or would replace a file."""
    for flag, name in (("--examples", config.examples), ("--plot", config.plot)):
        if name and not name.parent.is_dir():
            raise DistilkitError(f"no folder '{name.parent}' for {flag}: make it first")
        if name and not is_writable(name.parent):
            raise DistilkitError(f"cannot write {flag} '{name}' (the folder is not yours to write to): choose another")
        if name and name.exists():
            raise DistilkitError(f"{flag} '{name}' is already there: choose another name")
    if config.plot:
        calibration.check_picture(config.plot)


def write_files(config: EvalOptions, examples: list[dict[str, Any]], curves: dict[str, Sequence[Bin]]) -> None:
    """Write the examples, a JSON object a line, and the picture of reliability."""
    if config.examples:
        write_text(config.examples, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in examples))
    if config.plot and curves:
        calibration.draw(curves, config.plot)
    elif config.plot:
        warn("a number has no confidence that --plot could show: nothing is drawn")


def ask(pair: Pair, config: EvalOptions) -> PairedOutputs:
    """Open a checkpoint and its teacher, and ask both about the text."""
    documents = corpus.read_documents(str(config.agreement))
    student, teacher = pair.open()
    limits = [limit for opened in (student, teacher) if (limit := checkpoint.max_tokens(opened.model)) is not None]
    length = min([config.max_length or trained_length(pair.student), *limits])
    if pair.head == "masked-lm":
        blocks = pack_documents(documents, student.tokenizer, length)
        collate = make_collate(student.tokenizer, DistillOptions.mask_probability)
        # masked as distill masks its held-out text, whatever --seed
        batches = Batches(blocks, collate, batch_size=config.batch_size, seed=0)
        found = at_masked_tokens(student.model, teacher.model, student.tokenizer, batches)
    else:
        texts = [text for text in documents["text"] if text and text.strip()]
        found = _classified(student, teacher, texts, length, config.batch_size)
    sides = (found.student, found.teacher) if found.belief is None else (found.belief.student, found.belief.teacher)
    for name, values in zip((pair.student, pair.teacher), sides, strict=True):
        if not np.isfinite(values).all():
            raise DistilkitError(f"'{name}' gives outputs that are no numbers: its training diverged, take another")
    return found


def _classified(student: Opened, teacher: Opened, texts: list[str], length: int, batch_size: int) -> PairedOutputs:
    order = match_label_order(student.model.config, teacher.model.config, teacher.name)
    theirs, ours = (classify(each.model, each.tokenizer, texts, length, batch_size) for each in (teacher, student))
    return to_texts((theirs[:, order], ours), texts, output_names(student.model.config))


def reliabilities(found: PairedOutputs) -> dict[str, list[Bin]]:
    """Return how often the student agrees, by its own confidence and by the teacher's; {} for numbers."""
    if found.belief is None:
        return {}
    agreed = 1 - found.misses
    sides = (("student", found.belief.student), ("teacher", found.belief.teacher))
    return {whose: calibration.reliability(confidence, agreed) for whose, confidence in sides}


def measure(found: PairedOutputs, ranked: list[Slice], bins: dict[str, list[Bin]]) -> dict[str, float]:
    """Return the metrics: agreement, or for numbers the difference, with their slices, the worst first."""
    if found.belief is None:
        metric, values = "difference", _measure_numbers(found)
    else:
        metric, values = "agreement", _measure_classes(found, bins)
    values[f"{metric}/{found.unit}"] = float(len(found.misses))
    for name, size, miss, at_least in ranked:
        value, bound = (miss, at_least) if found.belief is None else (1 - miss, 1 - at_least)
        key = f"{metric}/slices/{name}"
        values |= {
            key: value,
            f"{key}/{'low' if found.belief is None else 'high'}": bound,
            f"{key}/count": float(size),
        }
    for whose, entries in bins.items():
        for low, high, size, confidence, right in entries:
            key = f"agreement/{whose}_bins/{low:.3f}-{high:.3f}"
            values |= {key: right, f"{key}/confidence": confidence, f"{key}/count": float(size)}
    return values


def _measure_classes(found: PairedOutputs, bins: dict[str, list[Bin]]) -> dict[str, float]:
    assert found.belief
    return {
        "agreement": float(1 - found.misses.mean()),
        "agreement/kl": float(found.belief.kl.mean()),
        "agreement/confidence": float(found.belief.student.mean()),
        "agreement/teacher_confidence": float(found.belief.teacher.mean()),
        "agreement/ece": calibration.expected_error(bins["student"]),
        "agreement/teacher_ece": calibration.expected_error(bins["teacher"]),
    }


def _measure_numbers(found: PairedOutputs) -> dict[str, float]:
    correlations = (metrics.compute(name, found.student, found.teacher) for name in ("pearson", "spearmanr"))
    related = {f"difference/{name}": value for values in correlations for name, value in values.items()}
    return {"difference": float(found.misses.mean()), **related}


def worst(found: PairedOutputs, ranked: list[Slice]) -> list[dict[str, Any]]:
    """Return a few items of each slice, the worst slice first: where the student is furthest from the teacher."""
    distance = found.misses if found.belief is None else found.belief.kl
    order = sorted(np.flatnonzero(found.misses), key=lambda item: -distance[item])
    examples = []
    for entry in ranked:
        family, _, name = entry.name.partition("/")
        mine = [int(item) for item in order if found.families[family][item] == name][:EXAMPLES]
        examples += [{"slice": entry.name, **found.describe(item)} for item in mine]
    return examples
