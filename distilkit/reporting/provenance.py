"""How models were made: the commands of their records, each once, and the machines they ran on."""

import os.path
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distilkit.errors import DistilkitError
from distilkit.formatting import format_duration, format_millions, format_score
from distilkit.machine import PACKAGES
from distilkit.options.declare import build, command_line
from distilkit.options.recipes import COMMANDS
from distilkit.options.spec import fields_of, flag
from distilkit.record import Record
from distilkit.reporting.models import Model, Results
from distilkit.reporting.records import MEASUREMENTS
from distilkit.reporting.tables import headline_metrics
from distilkit.tasks.catalogue import TASKS
from distilkit.tasks.settings import SPAN_OPTIONS

HOME = re.compile(r"^(/home/[^/]+|/Users/[^/]+|/root)(?=/)")  # also that of another machine
QUOTED_HOME = re.compile(r"'~/([^']*)'")
MACHINE_FACTS = ("machine", "cpu", "gpu", "os", "python", *PACKAGES, "commit")


class Step(NamedTuple):
    """A command that was run: title, command line, outcome in figures, and record."""

    title: str
    command: str
    outcome: str
    record: Record


def steps(results: Results) -> list[Step]:
    """Return the commands that made the models, in an order in which they can be run again."""
    records: list[Record] = []
    for done in (*(step for model in results.models for step in model.biography), *results.measured):
        if done not in records and done.command != "report":
            records.append(done)
    records.sort(key=lambda done: done.command in MEASUREMENTS)  # measurements come after all models are made
    base = base_of(records)
    return [Step(title(done), reproduction_command(done, base), outcome(done), done) for done in records]


def base_of(records: Iterable[Record]) -> str:
    """Return the directory from which paths are written: the working directory if it contains all outputs.

    Otherwise the lowest directory that contains them, "" if that is only the root.
    """
    outputs = [str(done.config["output"]) for done in records if done.config.get("output")]
    parents = [str(Path(output).parent) for output in outputs if Path(output).is_absolute()]
    base, here = os.path.commonpath(parents) if parents else "", Path.cwd()
    if base and Path(base).is_relative_to(here):
        base = str(here)
    return "" if base == os.path.sep else base


def reproduction_command(done: Record, base: str = "") -> str:
    """Return the command line of a record, as typed in the directory `base`; home directories become ~.

    Options that this version does not know are dropped. If the rest is not valid, all options are written as they are.
    """
    config = {name: _relative(value, base) for name, value in typed_options(done).items() if value is not None}
    config_class = COMMANDS.get(done.command)
    try:
        if config_class is None:
            raise DistilkitError(f"no command '{done.command}'")
        known = {item.name for item, _ in fields_of(config_class)}
        line = command_line(done.command, build(config_class, {}, {k: v for k, v in config.items() if k in known}))
    except (DistilkitError, TypeError):  # a record of another version
        words = [word for name, value in config.items() for word in (flag(name), str(value))]
        line = shlex.join(["distilkit", done.command, *words])
    return QUOTED_HOME.sub(lambda quoted: f"~/{shlex.quote(quoted[1])}", line)  # a shell expands no quoted ~


def typed_options(done: Record) -> dict[str, Any]:
    """Return the options of a record as they were typed, without --resume.

    An older record has only the options as they were used. Of these, the ones that cannot be typed together are left
    out.
    """
    unused = {"resume"}
    if not done.given and done.command in ("finetune", "eval"):
        unused |= {"epochs"} if done.config.get("steps") else set()
        unused |= set() if str(done.config.get("task")).startswith("squad") else set(SPAN_OPTIONS)
        unused |= set() if done.config.get("task") == "custom" else {"text", "label", "kind"}
    return {name: value for name, value in (done.given or done.config).items() if name not in unused}


def _relative(value: Any, base: str) -> Any:
    if isinstance(value, list):
        return [_relative(entry, base) for entry in value]
    if base and isinstance(value, str) and (value == base or value.startswith(base + os.path.sep)):
        return os.path.relpath(value, base)
    return hide_home(value) if isinstance(value, str) else value


def hide_home(place: str) -> str:
    """Return a path with ~ in place of a home directory, so that a published card names no user."""
    mine = str(Path.home())
    return f"~{place.removeprefix(mine)}" if place.startswith(mine + os.path.sep) else HOME.sub("~", place)


def title(done: Record) -> str:
    """Name a step by its command and its output."""
    output = done.config.get("output")
    parts = Path(output or "").parts
    return f"{done.command}: {'/'.join(parts[-2 if parts[-1] in TASKS else -1 :])}" if parts else done.command


def outcome(done: Record) -> str:
    """Summarise in figures what a step took and achieved."""
    metrics, facts = done.metrics, []
    if done.command == "init" and "kept_layers" in done.environment:
        facts.append(f"kept layers {done.environment['kept_layers']}")
    if done.environment.get("weights") == "random":
        facts.append("random weights")
    if "student/parameters" in metrics and "teacher/parameters" in metrics:
        ours, theirs = (format_millions(metrics[f"{model}/parameters"]) for model in ("student", "teacher"))
        facts.append(f"{ours} of {theirs} parameters")
    if "max_difference" in metrics:
        facts.append(f"largest output difference {metrics['max_difference']:.2g}")
    facts += [f"{metrics[name]:,.0f} {name}" for name in ("updates", "tokens") if name in metrics]
    if "seconds" in metrics:
        facts.append(format_duration(metrics["seconds"]) + (" per seed" if (done.config.get("seeds") or 1) > 1 else ""))
    if "tokens_per_second" in metrics:
        facts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    if done.command in ("distill", "finetune"):
        facts.append(seeds(done))
        facts += [f"{word} {metrics[name]:.3f}" for name, word in LOSSES.items() if name in metrics]
    if done.command == "finetune":
        model = Model("", "", [], metrics, [])
        facts += [
            f"{task} {metric} {format_score(metrics[f'{task}/{metric}'])}" for task, metric in headline_metrics([model])
        ]
    facts += [f"{name} {done.environment[name]}" for name in ("device", "threads") if name in done.environment]
    if "other_processes" in done.environment:
        facts.append(f"other processes used {done.environment['other_processes']}")
    return ", ".join(facts)


LOSSES = {"loss": "last training loss", "heldout_loss": "held-out loss"}


def seeds(done: Record) -> str:
    """Name the seed or seeds of a training run."""
    first, count = done.config.get("seed"), int(done.config.get("seeds") or 1)
    return f"seed {first}" if count == 1 or first is None else f"seeds {first} to {first + count - 1}"


def training_seconds(records: Iterable[Record]) -> float:
    """Sum up training time. A record of several seeds has their median, which counts once per seed."""
    return sum(done.metrics.get("seconds", 0.0) * int(done.config.get("seeds") or 1) for done in records)


def machines(done: Sequence[Step]) -> list[tuple[dict[str, str], list[int]]]:
    """Return the different machines and versions, each with the numbers (from 1) of the steps that ran there."""
    places: list[tuple[dict[str, str], list[int]]] = []
    for number, step in enumerate(done, 1):
        where = {name: str(step.record.environment[name]) for name in MACHINE_FACTS if name in step.record.environment}
        found = next((numbers for known, numbers in places if known == where), None)
        if found is None:
            places.append((where, [number]))
        else:
            found.append(number)
    return places
