"""The metrics of GLUE and SQuAD as evaluate.Metric classes that need no network."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from distilkit.errors import DistilkitError


def correlation(formula: Callable[..., Any]) -> Callable[..., float]:
    """Make a correlation of SciPy's return 0.0 where one side is constant.

    There it is undefined (SciPy: nan), but a model that answers the same to everything knows nothing of the order,
    which is what 0 means; scikit-learn's Matthews coefficient does the same.
    """

    def compute(references: Sequence[float], predictions: Sequence[float]) -> float:
        if np.ptp(references) == 0 or np.ptp(predictions) == 0:
            return 0.0
        return float(formula(references, predictions).statistic)

    return compute


class Formula(evaluate.Metric):  # type: ignore[misc]
    """A metric that is one formula of (references, predictions); each subclass is a row of SCORES."""

    metric_name: ClassVar[str]
    dtype: ClassVar[str]
    formula: ClassVar[Callable[..., Any]]

    def _info(self) -> evaluate.MetricInfo:
        one = Value(self.dtype)
        features = [
            Features({"predictions": kind, "references": kind}) for kind in (one, List(one))
        ]  # List: multi-label
        return evaluate.MetricInfo(description=self.metric_name, citation="", features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {self.metric_name: float(type(self).formula(references, predictions))}


SCORES: dict[str, tuple[str, Callable[..., Any]]] = {
    "accuracy": ("int32", accuracy_score),
    "f1": ("int32", lambda y, p: f1_score(y, p, zero_division=0)),
    "f1_micro": ("int32", lambda y, p: f1_score(y, p, average="micro", zero_division=0)),
    "f1_macro": ("int32", lambda y, p: f1_score(y, p, average="macro", zero_division=0)),
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

    def _info(self) -> evaluate.MetricInfo:
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        features = Features(
            {
                "predictions": {"id": Value("string"), "prediction_text": Value("string")},
                "references": {"id": Value("string"), "answers": answers},
            }
        )
        return evaluate.MetricInfo(description="squad", citation="", features=features)

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        texts = {entry["id"]: entry["prediction_text"] for entry in predictions}
        golds = {entry["id"]: list(entry["answers"]["text"]) for entry in references}
        return squad_scores(texts, golds, version=self.version)


class SquadV2(Squad):
    """SQuAD 2.0: some questions have no answer, and "" is right for them."""

    version = 2


CLASSES |= {"squad": Squad, "squad_v2": SquadV2}


def compute(name: str, predictions: Any, references: Any) -> dict[str, float]:
    """Score predictions with the metric of that name, in memory."""
    scores: dict[str, float] = CLASSES[name](keep_in_memory=True).compute(
        predictions=predictions, references=references
    )
    return scores


def squad_scores(texts: dict[str, str], golds: dict[str, list[str]], *, version: int) -> dict[str, float]:
    """Return exact_match and f1, 0 to 100, means over all questions; one without a prediction counts 0.

    For version 2 there are has_answer/ and no_answer/ scores besides.
    """
    exact, f1 = {}, {}
    for key, answers in golds.items():
        if version == 1 and not answers:
            raise DistilkitError(f"question '{key}' has no answer: score such data with --task squad_v2")
        right = answers if version == 1 else [answer for answer in answers if normalize(answer)] or [""]
        pairs = [(texts[key], answer) for answer in right] if key in texts else []
        exact[key] = max((float(normalize(text) == normalize(answer)) for text, answer in pairs), default=0.0)
        f1[key] = max((token_f1(text, answer, version=version) for text, answer in pairs), default=0.0)
    groups = {"": list(golds)}
    if version == 2:
        groups["has_answer/"] = [key for key, answers in golds.items() if answers]
        groups["no_answer/"] = [key for key, answers in golds.items() if not answers]
    return {
        f"{group}{name}": 100.0 * sum(values[key] for key in keys) / len(keys)
        for group, keys in groups.items()
        if keys
        for name, values in (("exact_match", exact), ("f1", f1))
    }


def normalize(text: str) -> str:
    """Lower the case, drop punctuation and articles, and squeeze blanks, as the official scripts do."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def token_f1(text: str, answer: str, *, version: int) -> float:
    """Return the F1 of the words two texts share.

    Where nothing is left of one after normalising, 2.0 asks whether the same is true of the other; 1.1 says 0.
    """
    words, gold = normalize(text).split(), normalize(answer).split()
    if version == 2 and not (words and gold):
        return float(words == gold)
    shared = sum((Counter(words) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
