"""What a command did: the Record, the names of its metrics, and a checkpoint's history."""

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from distilkit.errors import DistilkitError
from distilkit.files import BIOGRAPHY, write_text
from distilkit.options.spec import spec_of

PACKAGES = ("distilkit", "torch", "transformers", "accelerate", "datasets", "tokenizers")


MODEL_PREFIX = re.compile(r"(\d+|teacher|student|control(-\d+)?)/")
BENCH_SETTING = re.compile(r"(\w+)/(\w+)/b(\d+)/(?:l(\d+)|data)")
COMPARISONS = ("retention", "difference")
DETAILS = ("low", "high", "min", "max", "count")


class MetricName(NamedTuple):
    """The name of a metric in a record, taken apart; str() puts it together again.

    | name | model | subject | metric | detail |
    |---|---|---|---|---|
    | sst2/accuracy/min | | sst2 | accuracy | min |
    | 1/retention/mrpc/low | 1 | retention/mrpc | | low |
    | difference/mrpc/control-1 | | difference/mrpc | control-1 | |
    | 0/cpu/fp32/b1/l128/latency_ms_p50 | 0 | cpu/fp32/b1/l128 | latency_ms_p50 | |
    | teacher/parameters | teacher | | parameters | |
    """

    model: str = ""  # a position, teacher, student, control or control-N
    subject: str = ""  # a task, a comparison with its task, a setting of bench, a part of a text
    metric: str = ""  # "" if the subject is the metric
    detail: str = ""  # which end of an interval or of a range over seeds

    @classmethod
    def parse(cls, text: str) -> "MetricName":
        """Take a name apart."""
        prefix = match[1] if (match := MODEL_PREFIX.match(text)) else ""
        words = (text[len(prefix) + 1 :] if prefix else text).split("/")
        detail = words.pop() if len(words) > 1 and words[-1] in DETAILS else ""
        if words[0] in COMPARISONS and len(words) > 1:
            return cls(prefix, "/".join(words[:2]), "/".join(words[2:]), detail)
        return cls(prefix, "/".join(words[:-1]), words[-1], detail)

    def __str__(self) -> str:
        return "/".join(word for word in self if word)

    @property
    def comparison(self) -> str:
        """`retention` or `difference`, "" for a metric that compares nothing."""
        word = self.subject.split("/")[0]
        return word if word in COMPARISONS else ""

    @property
    def task(self) -> str:
        """The task of a score or a comparison."""
        return self.subject.split("/")[1 if self.comparison else 0]

    @property
    def seed(self) -> str:
        """The seed in a metric of one seed (`seed-42/collapsed`; with several tasks `mrpc/seed-42/collapsed`)."""
        word = self.subject.split("/")[-1]
        return word.removeprefix("seed-") if word.startswith("seed-") else ""


class BenchSetting(NamedTuple):
    """A setting in which bench measures all models: the subject of the metrics measured in it."""

    device: str
    precision: str
    batch_size: int
    length: int  # tokens; 0: those of the rows of --task or --data

    @classmethod
    def parse(cls, subject: str) -> "BenchSetting | None":
        """Take a subject apart, like cpu/fp32/b1/l128; None if it is no setting of bench."""
        match = BENCH_SETTING.fullmatch(subject)
        return cls(match[1], match[2], int(match[3]), int(match[4] or 0)) if match else None

    def __str__(self) -> str:
        length = f"l{self.length}" if self.length else "data"
        return f"{self.device}/{self.precision}/b{self.batch_size}/{length}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a command did; the table, --json and distilkit.json are views of it."""

    command: str
    config: dict[str, Any]
    metrics: dict[str, float]
    environment: dict[str, str]
    schema: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the record as one JSON object, `schema` first."""
        return {"schema": self.schema, **{k: v for k, v in asdict(self).items() if k != "schema"}}


def record(command: str, config: Any, metrics: dict[str, float], **environment: str) -> Record:
    """Make the record of a command that has just run; `environment` is added to versions and machine."""
    return Record(
        command=command,
        config=config_json(config),
        metrics=metrics,
        environment=_machine() | environment,
    )


def config_json(config: Any) -> dict[str, Any]:
    """Return the recorded options as JSON values. Local paths become absolute."""
    return {
        item.name: _plain(getattr(config, item.name), place=spec_of(item).is_path)
        for item in fields(config)
        if spec_of(item).recorded
    }


def _plain(value: Any, *, place: bool) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(entry, place=place) for entry in value]
    if place and value and not Path(value).exists():
        return str(value)  # on the hub
    if isinstance(value, Path) or (place and value):
        return str(Path(value).absolute())
    return value


def baselines_by_prefix(names: Sequence[str] | None) -> dict[str, str]:
    """Return the baselines of an eval by the model in their metric names: `control`, or `control-N` for several."""
    names = names or ()
    return {f"control-{n}" if len(names) > 1 else "control": name for n, name in enumerate(names)}


def _machine() -> dict[str, str]:
    import importlib.metadata  # here, because --help would pay for them
    import platform

    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"python": platform.python_version(), **versions, "machine": f"{platform.machine()}, {cores} CPU cores"}


def read_biography(directory: str | Path) -> list[Record]:
    """Read the records of a checkpoint, oldest first; [] if distilkit did not write it.

    Raises DistilkitError if distilkit.json is damaged.
    """
    path = Path(directory) / BIOGRAPHY
    if not path.is_file():
        return []
    import json  # here and below, because --help would pay for it

    names = {item.name for item in fields(Record)}
    try:
        return [
            Record(**{k: v for k, v in entry.items() if k in names}) for entry in json.loads(path.read_text("utf-8"))
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise DistilkitError(f"'{path}' is damaged ({error}): delete it or make the checkpoint again") from None


def write_biography(directory: Path, records: list[Record]) -> None:
    """Write distilkit.json atomically. It is written last: if it exists, the directory is finished."""
    write_text(directory / BIOGRAPHY, json_text([entry.to_json() for entry in records]) + "\n")


def json_text(document: Any) -> str:
    """Format a JSON document as every command writes it."""
    import json

    return json.dumps(document, indent=2)


def remembered_teacher(directory: str | Path, commands: tuple[str, ...] = ("init", "distill")) -> str | None:
    """Return the teacher of a checkpoint's last record of these commands, None without one."""
    for entry in reversed(read_biography(directory)):
        if entry.command in commands and entry.config.get("teacher"):
            return str(entry.config["teacher"])
    return None


COLLAPSED = "collapsed"  # a mark beside the scores: the same answer to every row
