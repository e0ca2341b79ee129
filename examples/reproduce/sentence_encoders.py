"""Make smaller students of a sentence encoder and measure what they keep, beside the same layers untrained.

    python sentence_encoders.py --corpus wikipedia-train.txt --sts rows/stsb --retrieval dev-v1.1.json --layers 3 2 1

Every step is one distilkit command, which is printed before it runs. Finished steps are skipped and interrupted ones
continue, so after an interruption run the same command again. For each number of layers there are an untrained student
and one distilled student per seed. `--small` makes 20 updates, to see that everything runs.
"""

import argparse
import json
import shlex
from pathlib import Path
from statistics import median

from steps import distilkit, made, markdown

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
HEADLINES = {"sts": "spearmanr", "retrieval": "mrr_at_10"}
HEADER = ["", "STS Spearman", "of the teacher", "MRR@10", "of the teacher", "parameters"]


def main() -> None:
    arguments = parse_arguments()
    rows: list[list[str | float | None]] = []
    for layers in arguments.layers:
        folder = arguments.out / f"layers-{layers}"
        start = made(folder / "untrained", "init", arguments.teacher, "--layers", str(layers))
        seeds = [distilled(arguments, folder, start, seed) for seed in arguments.seeds]
        scores = [evaluate(arguments, folder, [start, *seeds], task) for task in HEADLINES]
        if not rows:
            rows.append(["teacher", *(cell for teacher, _ in scores for cell in (f"{teacher:.3f}", "100 %")), ""])
        size = f"{parameters(start) / 1e6:.1f} M"
        for name, chosen in (("untrained", slice(1)), ("distilled", slice(1, None))):
            cells = [cell for teacher, found in scores for cell in share(found[chosen], teacher)]
            rows.append([f"{layers} layer{'s' * (layers > 1)}, {name}", *cells, size])
    text = markdown(HEADER, rows)
    (arguments.out / "sentence-encoders.md").write_text(text, encoding="utf-8")
    print(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default=TEACHER, help="a directory or a hub id")
    parser.add_argument("--corpus", required=True, help="text to distil on")
    parser.add_argument("--sts", required=True, help="folder with pairs of texts and their scores")
    parser.add_argument("--retrieval", required=True, help="queries and passages: SQuAD's JSON, BEIR's files or pairs")
    parser.add_argument("--layers", type=int, nargs="+", default=[3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--distill", type=shlex.split, default=["--steps", "1000"], help="distill options")
    parser.add_argument("--small", action="store_true", help="20 updates and one seed, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("sentence-encoders"))
    arguments = parser.parse_args()
    if arguments.small:
        arguments.seeds, arguments.distill = [42], ["--steps", "20"]
    return arguments


def distilled(arguments: argparse.Namespace, folder: Path, start: str, seed: int) -> str:
    """Return the student of a seed."""
    options = ["--corpus", arguments.corpus, *arguments.distill, "--seed", str(seed), "--resume"]
    return made(folder / f"seed-{seed}", "distill", start, *options)


def evaluate(arguments: argparse.Namespace, folder: Path, models: list[str], task: str) -> tuple[float, list[float]]:
    """Return the scores of the teacher and of the models."""
    saved = folder / f"{task}.json"
    if not saved.is_file():
        rows = ["--data", getattr(arguments, task), "--against", arguments.teacher]
        saved.write_text(distilkit("eval", *models, "--task", task, *rows, "--json"), encoding="utf-8")
    metrics = json.loads(saved.read_text(encoding="utf-8"))["metrics"]
    name = f"{task}/{HEADLINES[task]}"
    return metrics[f"teacher/{name}"], [metrics[f"{number}/{name}"] for number in range(len(models))]


def share(scores: list[float], teacher: float) -> tuple[str, str]:
    """Return the median score and its share of the teacher's, with the range of several seeds."""
    middle, low, high = median(scores), min(scores), max(scores)
    spread = (f" ({low:.3f} to {high:.3f})", f" ({low / teacher:.1%} to {high / teacher:.1%})")
    return tuple(  # type: ignore[return-value]
        text + (more if len(scores) > 1 else "")
        for text, more in zip((f"{middle:.3f}", f"{middle / teacher:.1%}"), spread, strict=True)
    )


def parameters(model: str) -> float:
    """Return the parameters of a student from its record."""
    records = json.loads((Path(model) / "distilkit.json").read_text(encoding="utf-8"))
    return float(records[-1]["metrics"]["student/parameters"])


if __name__ == "__main__":
    main()
