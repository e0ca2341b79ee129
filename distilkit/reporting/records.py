"""Find the records of eval and bench, and which models they name."""

from pathlib import Path

from distilkit.encoders.sizes import weights_bytes
from distilkit.errors import DistilkitError
from distilkit.files import read_json
from distilkit.progress import say_once
from distilkit.record import MetricName, Record, baselines_by_prefix, parse_record, read_biography
from distilkit.tasks.catalogue import TASKS

MEASUREMENTS = ("eval", "bench")


def same_model(place: str, named: str) -> bool:
    """Say whether a name in a record means the model at a location: the same path, a moved one, or a part of it.

    A part is the checkpoint of one task inside the directory.
    """
    here, there = Path(place), Path(named)
    if place == named or here.resolve() == there.resolve():
        return True
    if not (here.is_absolute() and there.is_absolute()):
        return False
    depth = 2 if here.name in TASKS else 1  # a task's name does not identify a model
    moved = here.parts[-depth:] == there.parts[-depth:] and not there.exists()
    return moved or (there.name in TASKS and here.name not in TASKS and same_model(place, str(there.parent)))


def eval_and_bench_records(directory: Path) -> list[Record]:
    """Return the eval and bench records of a directory: in its history, and saved there with --json.

    Another program's JSON file of such a name, which names no command, is left out with a note.
    Raises DistilkitError for a file that cannot be read, or a record of another command.
    """
    found = [step for step in read_biography(directory) if _is_measurement(step)]
    for path in sorted((*directory.glob("eval*.json"), *directory.glob("bench*.json"))):
        try:
            document = read_json(path)
            if not isinstance(document, dict) or "command" not in document:
                say_once(f"'{path}' is not a record of distilkit: it is left out")
                continue
            found.append(parse_record(document))
            reason = "" if _is_measurement(found[-1]) else f"of {found[-1].command}"
        except (OSError, ValueError) as error:
            reason = str(error)
        if reason:
            raise DistilkitError(
                f"'{path}' is not a record of eval or bench ({reason}): delete it, or give it another name"
            )
    return found


def _is_measurement(done: Record) -> bool:
    models = done.config.get("models")
    return done.command in MEASUREMENTS and isinstance(models, list) and (bool(models) or done.command == "eval")


def position(found: Record, place: str) -> int | None:
    """Return the position, from 0, of the model at a location among a record's models; None if it is not there."""
    return next((i for i, name in enumerate(found.config["models"]) if same_model(place, name)), None)


def models_by_prefix(found: Record) -> dict[str, str]:
    """Return the models that a record names, by the prefix of their metrics."""
    models = found.config["models"]
    alone = found.command == "eval" and len(models) == 1
    entries = {"" if alone else f"{i}/": name for i, name in enumerate(models)}
    if found.config.get("against"):
        entries["teacher/"] = found.config["against"]
    return entries | {f"{label}/": name for label, name in baselines_by_prefix(found.config.get("control")).items()}


def metrics_of(found: Record, place: str) -> dict[str, float]:
    """Return a record's metrics of the model at a location. A teacher's comparison with itself is left out."""
    entries, mine = models_by_prefix(found), dict[str, float]()
    for prefix, name in entries.items():
        if same_model(place, name):
            others = ("baseline/", *(other for other in entries if other and not prefix))
            for metric, value in found.metrics.items():
                if metric.startswith(prefix) and not metric.startswith(others):
                    mine.setdefault(metric.removeprefix(prefix), value)
    if found.config.get("against") and same_model(place, found.config["against"]):
        return {name: value for name, value in mine.items() if not MetricName.parse(name).comparison}
    return mine


def task_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints of a model that has one per task, in the layout that `eval --task glue` reads.

    Returns [] if a checkpoint in the directory is not named after its task.
    """
    if not directory.is_dir() or weights_bytes(directory):
        return []
    inside = {path.name: path for path in directory.iterdir() if path.is_dir() and weights_bytes(path)}
    return [inside[task] for task in TASKS if task in inside] if inside.keys() <= TASKS.keys() else []


def biography(place: Path) -> list[Record]:
    """Return a model's records; for one checkpoint per task, the records of all, each once."""
    merged: list[Record] = []
    for done in read_biography(place) or (done for part in task_checkpoints(place) for done in read_biography(part)):
        if done not in merged:
            merged.append(done)
    return merged
