"""Halve a classifier or tagger on unlabelled texts and with labels, and measure what each student keeps.

    python classifier.py --task sst2 --data rows/sst2 --texts sentences.txt

Every step is one distilkit command, which is printed before it runs. Finished steps are skipped and interrupted ones
continue, so after an interruption run the same command again. The baselines have the same layers: cut out of the
teacher without training, and fine-tuned on the labels without a teacher. `--small` makes a few updates, to see that
everything runs.
"""

import argparse
import json
import shlex
from pathlib import Path

from steps import distilkit, made, markdown

STUDENTS = {"unlabelled": "unlabelled texts", "labels": "labels and teacher", "both": "unlabelled texts, then labels"}
BASELINES = {"control-0": "baseline: untrained", "control-1": "baseline: labels, no teacher"}  # in the order of main()
HEADER = ["", "score", "retention", "difference to untrained", "difference to labels alone"]


def main() -> None:
    arguments = parse_arguments()
    out, rows = arguments.out, ["--task", arguments.task, "--data", arguments.data]
    tune = [*rows, *arguments.finetune, "--resume"]
    teacher = made(out / "teacher", "finetune", arguments.model, *tune)
    cut = made(out / "cut", "init", teacher)
    texts = ["--corpus", arguments.texts, *arguments.distill, "--resume"]
    unlabelled = made(out / "unlabelled", "distill", cut, *texts)
    made(out / "labels", "finetune", cut, *tune, "--teacher", teacher)
    made(out / "both", "finetune", unlabelled, *tune, "--teacher", teacher)
    alone = made(out / "alone", "finetune", cut, *tune)
    students = [str(out / name) for name in STUDENTS]
    compared = ["--against", teacher, "--control", cut, "--control", alone]
    metrics = json.loads(distilkit("eval", *students, *rows, *compared, "--json"))["metrics"]
    text = markdown(HEADER, table(metrics, arguments.task, arguments.metric))
    (out / "classifier.md").write_text(text, encoding="utf-8")
    print(text)
    distilkit("bench", teacher, str(out / "labels"), "--devices", "cpu", "--batch-sizes", "1", "--seq-lengths", "32")
    distilkit("report", teacher, *students, cut, alone, "-o", str(out / "report"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="encoder to fine-tune")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--metric", default="accuracy", help="the task's metric in the table")
    parser.add_argument("--data", required=True, help="folder with the task's rows")
    parser.add_argument("--texts", required=True, help="texts without labels")
    parser.add_argument("--finetune", type=shlex.split, default=["--epochs", "1"], help="finetune options")
    parser.add_argument("--distill", type=shlex.split, default=["--steps", "2000"], help="distill options")
    parser.add_argument("--small", action="store_true", help="a few updates, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("classifier"))
    arguments = parser.parse_args()
    if arguments.small:
        arguments.finetune, arguments.distill = ["--steps", "5"], ["--steps", "5"]
    return arguments


def table(metrics: dict[str, float], task: str, metric: str) -> list[list[str | float | None]]:
    """Return a row for the teacher and each student and baseline: score, retention, differences with intervals."""
    score = f"{task}/{metric}"
    rows: list[list[str | float | None]] = [["teacher", f"{metrics[f'teacher/{score}']:.3f}", "100 %", None, None]]
    for number, title in enumerate(STUDENTS.values()):
        retention = with_interval(metrics, f"{number}/retention/{task}", "{:.1%}")
        differences = [
            with_interval(metrics, f"{number}/difference/{task}/{control}", "{:+.3f}") for control in BASELINES
        ]
        rows.append([title, f"{metrics[f'{number}/{score}']:.3f}", retention, *differences])
    for control, title in BASELINES.items():
        rows.append([title, f"{metrics[f'{control}/{score}']:.3f}", None, None, None])
    return rows


def with_interval(metrics: dict[str, float], name: str, form: str) -> str | None:
    if name not in metrics:  # a teacher that scores 0 has no retention
        return None
    value, low, high = (form.format(metrics[name + bound]) for bound in ("", "/low", "/high"))
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
