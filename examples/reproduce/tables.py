"""Make the tables of the DistilBERT paper (Sanh et al. 2019, arXiv 1910.01108) with your teacher, text and machine.

    python tables.py --tables 1 2 4 --teacher bert-base-uncased --corpus text/ --out reproduced

Every step is one distilkit command, which is printed before it runs. Finished steps are skipped and interrupted ones
continue, so after an interruption run the same command again. `--small` takes minutes instead of days: a few updates on
two tasks show that everything runs, and the scores mean nothing.
"""

import argparse
import json
import shlex
from pathlib import Path
from statistics import mean

from steps import distilkit, made, markdown

GLUE = {  # the metrics of each task; its score is their mean, as in the paper
    "cola": ["matthews_correlation"],
    "mnli": ["accuracy"],
    "mrpc": ["f1", "accuracy"],
    "qnli": ["accuracy"],
    "qqp": ["f1", "accuracy"],
    "rte": ["accuracy"],
    "sst2": ["accuracy"],
    "stsb": ["pearson", "spearmanr"],
    "wnli": ["accuracy"],
}
TASKS = GLUE | {"imdb": ["accuracy"], "squad": ["exact_match", "f1"]}
PAPER = {
    1: "BERT-base 79.5, DistilBERT 77.0 on average (96.9 %)",
    2: "BERT-base 93.46 | 81.2 | 88.5, DistilBERT 92.82 | 77.7 | 85.8, with (D) 79.1 | 86.9",
    4: "without CE -2.96, without cosine -1.46, without MLM -0.31, random start -3.69",
}
STUDENTS = {  # the start and the options of `distill`; the triple loss is its default
    "student": ("start", []),
    "masked LM alone": ("start", ["--objective", "mlm", "--alpha-ce", "0", "--alpha-mlm", "1", "--alpha-cos", "0"]),
    "without CE": ("start", ["--alpha-ce", "0"]),
    "without cosine": ("start", ["--alpha-cos", "0"]),
    "without MLM": ("start", ["--alpha-mlm", "0"]),
    "random start": ("random", []),
}


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in arguments.tables:
        text = {1: table_1, 2: table_2, 4: table_4}[number](arguments)
        text += f"\nThe paper: {PAPER[number]}.\n"
        (arguments.out / f"table-{number}.md").write_text(text, encoding="utf-8")
        print(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, nargs="+", choices=[1, 2, 4], default=[1, 2, 4])
    parser.add_argument("--teacher", default="bert-base-uncased", help="a directory or a hub id")
    parser.add_argument("--corpus", required=True, help="text to distil on")
    parser.add_argument("--data", type=Path, help="folder with one folder of rows per task (default: the hub's data)")
    parser.add_argument("--tasks", nargs="+", choices=GLUE, default=list(GLUE), help="GLUE tasks (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds per fine-tuning; the median run counts")
    parser.add_argument("--distill", type=shlex.split, default=["--recipe", "distilbert-2019"], help="distill options")
    parser.add_argument("--finetune", type=shlex.split, default=[], help="finetune options")
    parser.add_argument("--small", action="store_true", help="a few updates on two tasks, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("reproduced"))
    arguments = parser.parse_args()
    if arguments.small:
        arguments.tasks, arguments.seeds = arguments.tasks[:2], 1
        arguments.distill = arguments.finetune = ["--recipe", "smoke"]
    return arguments


def table_1(arguments: argparse.Namespace) -> str:
    """GLUE: the teacher, the student and two baselines without distillation."""
    models = {
        "teacher": arguments.teacher,
        "student": distilled(arguments, "student"),
        "untrained layers": started(arguments, "start"),
        "masked LM alone": distilled(arguments, "masked LM alone"),
    }
    scores = {name: glue_scores(arguments, name, model) for name, model in models.items()}
    rows = [[name, mean(row.values()), *row.values()] for name, row in scores.items()]
    retention = mean(scores["student"].values()) / mean(scores["teacher"].values())
    text = markdown(["", "average", *arguments.tasks], rows)
    return text + f"\nThe student keeps {retention:.1%} of the teacher's average.\n"


def table_2(arguments: argparse.Namespace) -> str:
    """IMDb and SQuAD 1.1; (D) is a second distillation, during fine-tuning on SQuAD."""
    student, rows = distilled(arguments, "student"), []
    teachers = {task: tuned(arguments, "teacher", arguments.teacher, task) for task in ("imdb", "squad")}
    for name, model in (("teacher", arguments.teacher), ("student", student)):
        imdb, squad = (tuned(arguments, name, model, task) for task in ("imdb", "squad"))
        rows.append([name, *scored(arguments, imdb, "imdb"), *scored(arguments, squad, "squad")])
    second = tuned(arguments, "student (D)", student, "squad", "--teacher", teachers["squad"])
    rows.append(["student (D)", None, *scored(arguments, second, "squad")])
    return markdown(["", "IMDb accuracy", "SQuAD EM", "SQuAD F1"], rows)


def table_4(arguments: argparse.Namespace) -> str:
    """The loss terms and the start: the difference of the GLUE average to the whole triple loss."""
    averages = {
        name: mean(glue_scores(arguments, name, distilled(arguments, name)).values())
        for name in ("student", "without CE", "without cosine", "without MLM", "random start")
    }
    rows = [[name, value, value - averages["student"]] for name, value in averages.items()]
    return markdown(["", "GLUE average", "difference"], rows)


def glue_scores(arguments: argparse.Namespace, name: str, model: str) -> dict[str, float]:
    """Return the score of each task in per cent: the mean of its metrics."""
    return {task: mean(scored(arguments, tuned(arguments, name, model, task), task)) for task in arguments.tasks}


def started(arguments: argparse.Namespace, name: str) -> str:
    return made(arguments.out / name, "init", arguments.teacher, *(["--random"] if name == "random" else []))


def distilled(arguments: argparse.Namespace, name: str) -> str:
    start, options = STUDENTS[name]
    student = started(arguments, start)
    corpus = ["--corpus", arguments.corpus, *arguments.distill, *options, "--resume"]
    return made(arguments.out / name.replace(" ", "-"), "distill", student, *corpus)


def tuned(arguments: argparse.Namespace, name: str, model: str, task: str, *options: str) -> str:
    folder = arguments.out / "tuned" / name.replace(" ", "-") / task
    seeds = ["--seeds", str(arguments.seeds), "--resume"]
    return made(
        folder, "finetune", model, "--task", task, *rows_of(arguments, task), *arguments.finetune, *seeds, *options
    )


def scored(arguments: argparse.Namespace, model: str, task: str) -> list[float]:
    """Return the task's metrics in per cent."""
    saved = Path(model) / "scores.json"
    if not saved.is_file():
        saved.write_text(
            distilkit("eval", model, "--task", task, *rows_of(arguments, task), "--json"), encoding="utf-8"
        )
    metrics = json.loads(saved.read_text(encoding="utf-8"))["metrics"]
    scale = 1 if task == "squad" else 100
    return [scale * metrics[f"{task}/{metric}"] for metric in TASKS[task]]


def rows_of(arguments: argparse.Namespace, task: str) -> list[str]:
    return ["--data", str(arguments.data / task)] if arguments.data else []


if __name__ == "__main__":
    main()
