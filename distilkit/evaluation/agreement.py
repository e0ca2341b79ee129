"""Measure how well students agree with their teachers on unlabelled text, overall and by slice."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from distilkit.claims import refuse_file
from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.blocks import pack_documents
from distilkit.data.masking import make_collate
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation import calibration, metrics
from distilkit.evaluation.calibration import Bin
from distilkit.evaluation.embeddings import compare_embeddings
from distilkit.evaluation.paired_outputs import (
    Opened,
    Pair,
    PairedOutputs,
    classify,
    compare_at_masked_tokens,
    compare_on_texts,
    find_teacher,
    trained_length,
)
from distilkit.evaluation.slices import Slice, rank_slices
from distilkit.files import is_writable, write_text
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.progress import warn
from distilkit.tasks.labels import match_label_order, output_names
from distilkit.training.devices import is_main_process

EXAMPLES_PER_SLICE = 5
AGREEMENT_METRICS = (
    *("agreement", "agreement/kl", "agreement/confidence", "agreement/teacher_confidence", "agreement/ece"),
    *("agreement/teacher_ece", "agreement/tokens", "agreement/texts"),
    *("agreement/cosine", "agreement/neighbours"),
    *("difference", "difference/pearson", "difference/spearmanr", "difference/texts"),
)
SLICE_WORDS = {  # words of the metrics that depend on the text: slices and bins of confidence
    *("slices", "student_bins", "teacher_bins", "kind", "frequency", "characters", "position", "shown"),
    *("words", "rare_words", "punctuation", "digits", "answer"),
}


def measure_agreement(options: EvalOptions) -> dict[str, float]:
    """Compare every checkpoint with its teacher on the text of --agreement; write --examples and --plot.

    With several checkpoints, metric names begin with the checkpoint's position.
    Raises DistilkitError if a pair cannot be compared or a file cannot be written, before any model runs.
    """
    check_files(options)
    pairs = [find_teacher(name, options.against) for name in options.models]
    merged: dict[str, float] = {}
    examples: list[dict[str, Any]] = []
    curves: dict[str, Sequence[Bin]] = {}
    for position, pair in enumerate(pairs):
        outputs = run_pair(pair, options)
        ranked, bins = rank_slices(outputs.disagreements, outputs.slices), reliability_bins(outputs)
        prefix = f"{position}/" if len(pairs) > 1 else ""
        merged |= {prefix + metric: value for metric, value in agreement_metrics(outputs, ranked, bins).items()}
        pair_names = {"model": pair.student, "against": pair.teacher}
        examples += [{**pair_names, **entry} for entry in worst_examples(outputs, ranked)]
        curves |= {f"{prefix}{model} confidence": entries for model, entries in bins.items()}
    if is_main_process():
        write_files(options, examples, curves)
    return merged


def check_files(options: EvalOptions) -> None:
    """Raise DistilkitError if --examples or --plot cannot be written or would replace a file."""
    for flag, path in (("--examples", options.examples), ("--plot", options.plot)):
        if path and not path.parent.is_dir():
            raise DistilkitError(f"folder '{path.parent}' of {flag} does not exist: create it first")
        if path and not is_writable(path.parent):
            raise DistilkitError(f"cannot write {flag} '{path}' (no permission for the folder): choose another folder")
        if path:
            refuse_file(path, flag)
    if options.plot:
        calibration.check_plot(options.plot)


def write_files(options: EvalOptions, examples: list[dict[str, Any]], curves: dict[str, Sequence[Bin]]) -> None:
    """Write the examples, one JSON object per line, and the reliability diagram."""
    if options.examples:
        write_text(options.examples, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in examples))
    if options.plot and curves:
        calibration.draw_reliability(curves, options.plot)
    elif options.plot:
        warn("--plot is not written: regression models have no confidence")


def run_pair(pair: Pair, options: EvalOptions) -> PairedOutputs:
    """Open a checkpoint and its teacher and run both on the text."""
    documents = corpus.read_documents(str(options.agreement))
    texts = [text for text in documents["text"] if text and text.strip()] if pair.head != "masked-lm" else []
    if pair.head == "encoder":
        return compare_embeddings(pair.student, pair.teacher, texts, options)
    student, teacher = pair.open()
    limits = [limit for opened in (student, teacher) if (limit := checkpoint.max_tokens(opened.model)) is not None]
    length = min([options.max_length or trained_length(pair.student), *limits])
    if pair.head == "masked-lm":
        blocks = pack_documents(documents, student.tokenizer, length)
        collate = make_collate(student.tokenizer, DistillOptions.mask_probability)
        # The fixed seed gives the masks that distill uses on its held-out text.
        batches = Batches(blocks, collate, batch_size=options.batch_size, seed=0)
        outputs = compare_at_masked_tokens(student.model, teacher.model, student.tokenizer, batches)
    else:
        outputs = _run_classifiers(student, teacher, texts, length, options.batch_size)
    values = outputs.confidences or outputs
    for name, side in ((pair.student, values.student), (pair.teacher, values.teacher)):
        if not np.isfinite(side).all():
            raise DistilkitError(
                f"'{name}' produces NaN or infinite outputs: its training diverged; use another checkpoint"
            )
    return outputs


def _run_classifiers(student: Opened, teacher: Opened, texts: list[str], length: int, batch_size: int) -> PairedOutputs:
    order = match_label_order(student.model.config, teacher.model.config, teacher.name)
    theirs, ours = (classify(each.model, each.tokenizer, texts, length, batch_size) for each in (teacher, student))
    return compare_on_texts((theirs[:, order], ours), texts, output_names(student.model.config))


def reliability_bins(outputs: PairedOutputs) -> dict[str, list[Bin]]:
    """Return agreement by the confidence of the student and of the teacher; {} for regression models."""
    if outputs.confidences is None:
        return {}
    agreed = 1 - outputs.disagreements
    sides = (("student", outputs.confidences.student), ("teacher", outputs.confidences.teacher))
    return {model: calibration.reliability(confidence, agreed) for model, confidence in sides}


def agreement_metrics(outputs: PairedOutputs, ranked: list[Slice], bins: dict[str, list[Bin]]) -> dict[str, float]:
    """Return `agreement` (or `difference` for regression models) overall, by slice and by confidence."""
    regression = outputs.confidences is None
    metric = "difference" if regression else "agreement"
    values = _difference_metrics(outputs) if regression else _overall_agreement(outputs, bins)
    values[f"{metric}/{outputs.unit}"] = float(len(outputs.disagreements))
    for name, size, disagreement, lower_bound in ranked:
        key = f"{metric}/slices/{name}"
        values[key] = disagreement if regression else 1 - disagreement
        values[f"{key}/{'low' if regression else 'high'}"] = lower_bound if regression else 1 - lower_bound
        values[f"{key}/count"] = float(size)
    for model, entries in bins.items():
        for low, high, size, confidence, right in entries:
            key = f"agreement/{model}_bins/{low:.3f}-{high:.3f}"
            values |= {key: right, f"{key}/confidence": confidence, f"{key}/count": float(size)}
    return values


def _overall_agreement(outputs: PairedOutputs, bins: dict[str, list[Bin]]) -> dict[str, float]:
    assert outputs.confidences
    return {
        "agreement": float(1 - outputs.disagreements.mean()),
        "agreement/kl": float(outputs.confidences.kl.mean()),
        "agreement/confidence": float(outputs.confidences.student.mean()),
        "agreement/teacher_confidence": float(outputs.confidences.teacher.mean()),
        "agreement/ece": calibration.expected_error(bins["student"]),
        "agreement/teacher_ece": calibration.expected_error(bins["teacher"]),
    }


def _difference_metrics(outputs: PairedOutputs) -> dict[str, float]:
    if outputs.overall:
        return {"difference": float(outputs.disagreements.mean()), **outputs.overall}
    correlations = (metrics.compute(name, outputs.student, outputs.teacher) for name in ("pearson", "spearmanr"))
    related = {f"difference/{name}": value for values in correlations for name, value in values.items()}
    return {"difference": float(outputs.disagreements.mean()), **related}


def worst_examples(outputs: PairedOutputs, ranked: list[Slice]) -> list[dict[str, Any]]:
    """Return the items of each slice on which the models differ most, worst slice first."""
    distance = outputs.disagreements if outputs.confidences is None else outputs.confidences.kl
    order = sorted(np.flatnonzero(outputs.disagreements), key=lambda item: -distance[item])
    examples = []
    for entry in ranked:
        way, _, name = entry.name.partition("/")
        mine = [int(item) for item in order if outputs.slices[way][item] == name][:EXAMPLES_PER_SLICE]
        examples += [{"slice": entry.name, **outputs.describe(item)} for item in mine]
    return examples
