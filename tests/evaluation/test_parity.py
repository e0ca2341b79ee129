"""Published scores, to the last digit, from a folder that is not part of distilkit.

DISTILKIT_DATA is its path. parity/squad_cases.json lists published SQuAD predictions with the output of the official
scripts, parity/glue_metric_doc_examples.json the documented examples of GLUE's metrics.
"""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from distilkit.commands.evaluate import evaluate
from distilkit.evaluation import metrics
from distilkit.options.evaluate import EvalOptions

DATA = Path(os.environ.get("DISTILKIT_DATA", ""))
PARITY = DATA / "parity"
NAMES = {
    "exact": "exact_match",
    "HasAns": "has_answer",
    "NoAns": "no_answer",
}  # names in the official scripts: our names
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PARITY.is_dir(), reason="DISTILKIT_DATA is no folder with parity/"),
]


def cases(name: str) -> list[dict[str, Any]]:
    if not (PARITY / name).is_file():
        return []
    found = json.loads((PARITY / name).read_text(encoding="utf-8"))
    return list(found["cases"] if isinstance(found, dict) else found)


def renamed(metric: str) -> str:
    return "_".join(NAMES.get(word, word) for word in metric.replace("exact_match", "exact").split("_"))


@pytest.mark.parametrize("case", cases("squad_cases.json"), ids=lambda case: Path(case["predictions"]).name)
def test_squad_predictions(case: dict[str, Any], tmp_path: Path) -> None:
    """`eval --predictions` gives every digit of the official scores, for 2.0 also by kind of question."""
    task = "squad_v2" if case["task"].endswith("2.0") else "squad"
    (tmp_path / "validation.json.gz").symlink_to((DATA / case["dataset"]).absolute())
    predictions = gzip.decompress((PARITY / case["predictions"]).read_bytes())
    (tmp_path / "predictions.json").write_bytes(predictions)
    found = evaluate(
        EvalOptions(models=(), task=task, data=tmp_path, predictions=tmp_path / "predictions.json")
    ).metrics
    expected = {
        f"{task}/{renamed(name)}": value for name, value in case["expected"].items() if not name.endswith("total")
    }

    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("case", cases("glue_metric_doc_examples.json"), ids=lambda case: case["metric"])
def test_documented_examples(case: dict[str, Any]) -> None:
    """Each value equals the documented one, to the documented digits."""
    weights = {"sample_weight": case["sample_weight"]} if "sample_weight" in case else {}
    found = metrics.compute(case["metric"], case["predictions"], case["references"], **weights)[case["metric"]]

    assert round(found, case.get("rounded", 15)) == round(case["expected"], case.get("rounded", 15))
