"""The records of eval and bench: which models they name, and what they say of each."""

import json
from pathlib import Path

from distilkit.errors import DistilkitError
from distilkit.record import Record, read_biography
from distilkit.tasks.catalogue import TASKS

MEASUREMENTS = ("eval", "bench")


def is_at(place: str, named: str) -> bool:
    """Say whether a record's name means the model at a place: the same one, one of its name that was moved, or a part.

    A part is the checkpoint of a task in it.
    """
    here, there = Path(place), Path(named)
    if place == named or here.resolve() == there.resolve():
        return True
    if not (here.is_absolute() and there.is_absolute()):
        return False
    depth = 2 if here.name in TASKS else 1  # a task's name is no model's
    moved = here.parts[-depth:] == there.parts[-depth:] and not there.exists()
    return moved or (there.name in TASKS and here.name not in TASKS and is_at(place, str(there.parent)))


def saved_records(directory: Path) -> list[Record]:
    """Return the eval and bench records of a directory: those in its biography, and those that --json saved there."""
    found = [step for step in read_biography(directory) if step.command in MEASUREMENTS and "models" in step.config]
    for path in sorted((*directory.glob("eval*.json"), *directory.glob("bench*.json"))):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            found.append(Record(**{"environment": {}, **entry}))
            found[-1].config["models"]
        except (ValueError, TypeError, KeyError):
            raise DistilkitError(f"'{path}' is no record of models: write it with --json > {path.name}") from None
    return found


def position(found: Record, place: str) -> int | None:
    """Return which of a record's models is at a place."""
    return next((i for i, name in enumerate(found.config["models"]) if is_at(place, name)), None)


def named(found: Record) -> dict[str, str]:
    """Return the models that a record names, by what the names of their metrics begin with."""
    models = found.config["models"]
    alone = found.command == "eval" and len(models) == 1
    entries = {"" if alone else f"{i}/": name for i, name in enumerate(models)}
    if found.config.get("against"):
        entries["teacher/"] = found.config["against"]
    return entries | {f"{label}/": name for label, name in controls(found).items()}


def controls(found: Record) -> dict[str, str]:
    """Return the controls that an eval record names, by what it calls them: `control`, or several `control-N`."""
    places = found.config.get("control") or ()
    return {f"control-{n}" if len(places) > 1 else "control": place for n, place in enumerate(places)}


def metrics_of(found: Record, place: str) -> dict[str, float]:
    """Return the metrics that are about the model at a place; of a teacher none of how it compares with itself."""
    entries, mine = named(found), dict[str, float]()
    for prefix, name in entries.items():
        if is_at(place, name):
            others = () if prefix else tuple(other for other in entries if other)
            for metric, value in found.metrics.items():
                if metric.startswith(prefix) and not metric.startswith(others):
                    mine.setdefault(metric.removeprefix(prefix), value)
    if found.config.get("against") and is_at(place, found.config["against"]):
        return {name: value for name, value in mine.items() if not name.startswith(("retention/", "difference/"))}
    return mine
