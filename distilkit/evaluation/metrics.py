"""The metrics of GLUE, SQuAD and entities as evaluate.Metric classes that need no network."""

import functools
import itertools
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy import stats
from seqeval.metrics import sequence_labeling as seqeval
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from distilkit.class_scores import names_of_labels
from distilkit.errors import DistilkitError

CLASS_METRICS = ("precision", "recall", "f1")
NULL_ODDS = "no_answer_probability"  # the name in evaluate's own squad_v2
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def correlation(formula: Callable[..., Any]) -> Callable[..., float]:
    """Make a correlation of SciPy return 0.0 if one side is constant.

    SciPy returns NaN there. But constant predictions carry no information about the labels, which 0 expresses, as in
    scikit-learn's Matthews coefficient.
    """

    def compute(references: Sequence[float], predictions: Sequence[float], **_options: Any) -> float:
        if np.ptp(references) == 0 or np.ptp(predictions) == 0:
            return 0.0
        return float(formula(references, predictions).statistic)

    return compute


class Formula(evaluate.Metric):  # type: ignore[misc]
    """A metric with a single formula of (references, predictions). Each row of SCORES becomes a subclass."""

    metric_name: ClassVar[str]
    dtype: ClassVar[str]
    formula: ClassVar[Callable[..., Any]]

    def _info(self) -> evaluate.MetricInfo:
        single = Value(self.dtype)
        # A list per row is for multi-label tasks.
        features = [Features({"predictions": kind, "references": kind}) for kind in (single, List(single))]
        return evaluate.MetricInfo(description=self.metric_name, citation="", features=features)

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
        return {self.metric_name: float(type(self).formula(references, predictions, **options))}


SCORES: dict[str, tuple[str, Callable[..., Any]]] = {
    "accuracy": ("int32", accuracy_score),
    "f1": ("int32", lambda y, p, **more: f1_score(y, p, zero_division=0, **more)),
    "f1_micro": ("int32", lambda y, p, **more: f1_score(y, p, average="micro", zero_division=0, **more)),
    "f1_macro": ("int32", lambda y, p, **more: f1_score(y, p, average="macro", zero_division=0, **more)),
    "matthews_correlation": ("int32", matthews_corrcoef),
    "pearson": ("float64", correlation(stats.pearsonr)),
    "spearmanr": ("float64", correlation(stats.spearmanr)),
}
CLASSES = {
    name: type(name.title().replace("_", ""), (Formula,), {"metric_name": name, "dtype": dtype, "formula": formula})
    for name, (dtype, formula) in SCORES.items()
}


class Squad(evaluate.Metric):  # type: ignore[misc]
    """SQuAD's exact match and F1, 0 to 100, as the official evaluation scripts of 1.1 and 2.0 compute them."""

    version = 1
    form: ClassVar[dict[str, Any]] = {"id": Value("string"), "prediction_text": Value("string")}

    def _info(self) -> evaluate.MetricInfo:
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        features = Features({"predictions": self.form, "references": {"id": Value("string"), "answers": answers}})
        return evaluate.MetricInfo(description="squad", citation="", features=features)

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        present = [entry for entry in predictions if entry["prediction_text"] is not None]  # None: a missing prediction
        texts = {entry["id"]: entry["prediction_text"] for entry in present}
        golds = {entry["id"]: list(entry["answers"]["text"]) for entry in references}
        odds = {entry["id"]: entry[NULL_ODDS] for entry in present if entry.get(NULL_ODDS) is not None}
        scores = squad_scores(texts, golds, version=self.version)
        return scores | (best_thresholds(texts, golds, odds) if odds else {})


class SquadV2(Squad):
    """SQuAD 2.0: some questions have no answer, and "" is right for them.

    Predictions have a `no_answer_probability`: a number that grows with the probability of "no answer", like the log
    odds in null_odds.json, or None. If it is a number, the best scores over all thresholds are computed too.
    """

    version = 2
    form: ClassVar[dict[str, Any]] = {**Squad.form, NULL_ODDS: Value("float64")}


class Entities(evaluate.Metric):  # type: ignore[misc]
    """Precision, recall and F1 of entities as seqeval gives them, over all and by type, and the accuracy of words.

    `labels` are the tags of the task: the names of types do not depend on which of them occur.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = List(Value("string"))
        features = Features({"predictions": tags, "references": tags})
        return evaluate.MetricInfo(description="seqeval", citation="", features=features)

    def _compute(
        self, predictions: list[list[str]], references: list[list[str]], labels: Sequence[str] = ()
    ) -> dict[str, float]:
        def scores(average: str | None) -> Any:
            return seqeval.precision_recall_fscore_support(references, predictions, average=average, zero_division=0)

        types = sorted({kind for rows in (references, predictions) for kind, _, _ in seqeval.get_entities(rows)})
        precision, recall, f1_score, _ = scores("micro")
        found = {"f1": f1_score, "precision": precision, "recall": recall}
        found["accuracy"] = seqeval.accuracy_score(references, predictions)
        known = entity_types({*labels, *itertools.chain.from_iterable((*references, *predictions))})
        names = dict(zip(known, names_of_labels(known), strict=True))
        for kind, *values in zip(types, *scores(None), strict=True):
            found |= of_class(names[kind], values)
        return {name: float(value) for name, value in found.items()}


def entity_types(tags: Iterable[str]) -> list[str]:
    """Return the types of entity that tags such as B-PER mark."""
    return sorted({kind for tag in tags for kind, _, _ in seqeval.get_entities([tag])})


def of_class(name: str, values: Sequence[float]) -> dict[str, float]:
    """Name the scores of one class: precision, recall, F1 and the number of its rows."""
    scores = {f"{metric}/{name}": float(value) for metric, value in zip(CLASS_METRICS, values[:3], strict=True)}
    return scores | {f"f1/{name}/count": float(values[3])}


def by_class(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return precision, recall, F1 and rows of each class, and the confusion matrix without its zeros.

    Predictions and labels are classes (N,), or 0 and 1 for each of several labels (N, C), which have no matrix.
    """
    known, names = range(len(names)), names_of_labels(names)
    columns = precision_recall_fscore_support(labels, predicted, labels=known, zero_division=0)
    found: dict[str, float] = {}
    for name, *values in zip(names, *columns, strict=True):
        found |= of_class(name, values)
    if predicted.ndim > 1:
        return found
    counts = confusion_matrix(labels, predicted, labels=known)
    cells = ((row, column) for row, column in np.argwhere(counts))
    return found | {f"confusion/{names[row]}/{names[column]}": float(counts[row, column]) for row, column in cells}


CLASSES |= {"squad": Squad, "squad_v2": SquadV2, "entities": Entities}


def compute(name: str, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
    """Score predictions with a metric by name, in memory. Options are passed to scikit-learn (sample_weight)."""
    scores: dict[str, float] = CLASSES[name](keep_in_memory=True).compute(
        predictions=predictions, references=references, **options
    )
    return scores


def squad_scores(texts: dict[str, str], golds: dict[str, list[str]], *, version: int) -> dict[str, float]:
    """Return exact_match and f1, 0 to 100, as means over all questions. A missing prediction counts 0.

    Version 2 also has has_answer_… and no_answer_… scores for questions with and without an answer.
    """
    values = squad_values(texts, golds, version=version)
    groups = {"": values}
    if version == 2:
        groups["has_answer_"] = {key: value for key, value in values.items() if golds[key]}
        groups["no_answer_"] = {key: value for key, value in values.items() if not golds[key]}
    return {
        f"{group}{name}": 100.0 * sum(value[column] for value in members.values()) / len(members)
        for group, members in groups.items()
        if members
        for column, name in enumerate(("exact_match", "f1"))
    }


def squad_values(texts: dict[str, str], golds: dict[str, list[str]], *, version: int) -> dict[str, tuple[float, float]]:
    """Return exact match and F1 of each question, 0 to 1: the best over its gold answers."""
    values = {}
    for key, answers in golds.items():
        if version == 1 and not answers:
            raise DistilkitError(f"question '{key}' has no answer: use --task squad_v2 for such data")
        right = answers if version == 1 else [answer for answer in answers if normalize(answer)] or [""]
        pairs = [(texts[key], answer) for answer in dict.fromkeys(right)] if key in texts else []
        exact = any(normalize(text) == normalize(answer) for text, answer in pairs)
        values[key] = (
            float(exact),
            max((token_f1(text, answer, version=version) for text, answer in pairs), default=0.0),
        )
    return values


def best_thresholds(texts: dict[str, str], golds: dict[str, list[str]], odds: dict[str, float]) -> dict[str, float]:
    """Return the best exact match and F1, 0 to 100, over all thresholds on the null odds, and these thresholds.

    Above the threshold, the prediction is "". As in find_best_thresh of SQuAD 2.0's official script, thresholds are
    tried in ascending order and the first best score wins. If "" is best for all questions, the threshold is 0.0 or,
    unlike in the script, just below the lowest odds if these are negative.
    """
    values = squad_values(texts, golds, version=2)
    keys = [key for key in sorted(odds, key=odds.__getitem__) if key in golds and key in texts]
    nothing = min(0.0, float(np.nextafter(min(odds.values()), -np.inf)))
    found: dict[str, float] = {}
    for column, name in enumerate(("exact_match", "f1")):
        gains = [values[key][column] if golds[key] else -float(bool(texts[key])) for key in keys]
        totals = np.cumsum([sum(not answers for answers in golds.values()), *gains])
        best = int(totals.argmax())
        found[f"best_{name}"] = 100.0 * float(totals[best]) / len(golds)
        found[f"best_{name}_threshold"] = float(odds[keys[best - 1]]) if best else nothing
    return found


@functools.lru_cache(maxsize=1 << 16)  # A text is compared with several answers, and answers repeat.
def normalize(text: str) -> str:
    """Lower-case a text, drop punctuation and articles, and collapse white space, as the official scripts do."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def token_f1(text: str, answer: str, *, version: int) -> float:
    """Return the F1 score of the words that two texts share.

    If a text is empty after normalising, version 2 returns 1 if the other is empty too; version 1 always returns 0.
    """
    words, gold = normalize(text).split(), normalize(answer).split()
    if version == 2 and not (words and gold):
        return float(words == gold)
    shared = sum((Counter(words) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
