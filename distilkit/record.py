"""What a command did: the Record, the names of its metrics, and a checkpoint's history."""

import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from distilkit.errors import DistilkitError, UnwritableError
from distilkit.files import BIOGRAPHY, read_json, write_text
from distilkit.machine import machine_facts
from distilkit.options.recipes import COMMANDS
from distilkit.options.spec import fields_of, spec_of
from distilkit.options.values import is_path_text

MODEL_PREFIX = re.compile(r"(\d+|teacher|student|extracted|control(-\d+)?|baseline)/")
BENCH_SETTING = re.compile(r"(\w+)/(\w+)/b(\d{1,9})/(?:l(\d{1,9})|data)")
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

    model: str = ""  # a position, teacher, student, extracted, control or control-N, baseline (an earlier eval)
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
        """Parse a subject such as cpu/fp32/b1/l128; return None if it is not a setting of bench."""
        match = BENCH_SETTING.fullmatch(subject)
        return cls(match[1], match[2], int(match[3]), int(match[4] or 0)) if match else None

    def __str__(self) -> str:
        length = f"l{self.length}" if self.length else "data"
        return f"{self.device}/{self.precision}/b{self.batch_size}/{length}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a command did; the table, --json and distilkit.json are views of it.

    `config` has the options as they were used, `given` those that were typed, or taken from a recipe.
    """

    command: str
    config: dict[str, Any]
    metrics: dict[str, float]
    environment: dict[str, str]
    given: dict[str, Any] = field(default_factory=dict)
    schema: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the record as one JSON object, `schema` first."""
        return {"schema": self.schema, **{k: v for k, v in asdict(self).items() if k != "schema"}}


def record(command: str, config: Any, metrics: dict[str, float], *, given: Any = None, **environment: str) -> Record:
    """Make the record of a command that has just run; `environment` is added to versions and machine.

    `given` are the options before the command filled in what was left to it, if they differ from `config`.
    """
    return Record(
        command=command,
        config=config_json(config),
        metrics=metrics,
        environment=machine_facts() | environment,
        given=given_json(given or config),
    )


def config_json(config: Any) -> dict[str, Any]:
    """Return the recorded options as JSON values. Local paths become absolute."""
    return {
        item.name: _plain(getattr(config, item.name), place=spec_of(item).is_path)
        for item in fields(config)
        if spec_of(item).recorded
    }


def given_json(config: Any) -> dict[str, Any]:
    """Return the recorded options that differ from their defaults, as JSON values."""
    given = {item.name for item in fields(config) if getattr(config, item.name) != item.default}
    return {name: value for name, value in config_json(config).items() if name in given}


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


def read_biography(directory: str | Path) -> list[Record]:
    """Read the records of a checkpoint, oldest first; [] if distilkit did not write it.

    Raises DistilkitError if distilkit.json is damaged.
    """
    path = Path(directory) / BIOGRAPHY
    try:
        document = read_json(path)
        if not isinstance(document, list):
            raise ValueError("it is not a list of records")  # noqa: TRY004 - what a reader raises on bad content
        return [parse_record(entry) for entry in document]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DistilkitError(f"'{path}' is damaged ({error}): delete it or make the checkpoint again") from None


def parse_record(entry: Any) -> Record:
    """Make a Record of a JSON value, whoever wrote it: another version of distilkit, or somebody else.

    Keys that this version does not know are dropped. A metric that JSON cannot hold, written as null, is NaN.
    Raises ValueError with the reason if a value does not have the type of its option, or if a metric is not a number.
    """
    found: dict[str, Any] = {"environment": {}, "given": {}, "schema": 1} | entry if isinstance(entry, dict) else {}
    kinds = {"command": str, "config": dict, "metrics": dict, "environment": dict, "given": dict, "schema": int}
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise ValueError(f"{name} is {_shown(found.get(name))}")  # noqa: TRY004 - as above
    return Record(
        command=found["command"],
        config=_recorded_options(found["command"], found["config"]),
        metrics={name: _recorded_number(name, value) for name, value in found["metrics"].items()},
        environment={name: _recorded_fact(name, value) for name, value in found["environment"].items()},
        given=_recorded_options(found["command"], found["given"]),
        schema=found["schema"],
    )


def _recorded_options(command: str, config: dict[str, Any]) -> dict[str, Any]:
    """Check the values of a record's options against their types; a single value of a list becomes a list."""
    known = [COMMANDS[command]] if command in COMMANDS else COMMANDS.values()
    kinds = {"output": Path, "teacher": str, "model": str}  # read whatever the command
    kinds |= {item.name: kind for options_class in known for item, kind in fields_of(options_class)}
    checked = dict(config)
    for name, value in config.items():
        kind = kinds.get(name)
        if kind is None or value is None:
            continue
        entries = value if isinstance(value, list) else [value]
        if not all(_fits(get_args(kind)[0] if get_origin(kind) is tuple else kind, entry) for entry in entries):
            raise ValueError(f"config.{name} is {_shown(value)}")
        if isinstance(value, list) and get_origin(kind) is not tuple:
            raise ValueError(f"config.{name} is {_shown(value)}")
        checked[name] = entries if get_origin(kind) is tuple else value
    return checked


def _fits(kind: Any, value: Any) -> bool:
    """Say whether a JSON value can be the value of an option. Choices may be those of another version."""
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return type(value) in (int, kind) and abs(value) < 2**63
    return isinstance(value, str) and is_path_text(value)


def _recorded_number(name: str, value: Any) -> Any:
    if value is None:
        return math.nan
    if not is_number(value):
        raise ValueError(f"metrics.{name} is {_shown(value)}")
    return value


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number that fits into a float."""
    return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)


def _recorded_fact(name: str, value: Any) -> str:
    if type(value) not in (str, int, float):
        raise ValueError(f"environment.{name} is {_shown(value)}")
    return str(value)


def _shown(value: Any) -> str:
    return f"{value!r}"[:60]


def is_output_of(directory: Path, command: str) -> bool:
    """Say whether all records of a directory are of one command."""
    try:
        return {done.command for done in read_biography(directory)} == {command}
    except DistilkitError:
        return False


def write_biography(directory: Path, records: list[Record]) -> None:
    """Write distilkit.json atomically. It is written last: if it exists, the directory is finished."""
    write_text(directory / BIOGRAPHY, json_text([entry.to_json() for entry in records]) + "\n")


def keep_record(done: Record, places: Iterable[str]) -> None:
    """Write the record of an eval or bench beside each checkpoint that distilkit made, for `report`.

    File names contain the date, so that a later record does not replace it. A directory that cannot be written to is
    skipped.
    """
    stamp = re.sub(r"[^\dT]", "", done.environment["date"].partition("+")[0])
    for place in dict.fromkeys(Path(name) for name in places):
        if (place / BIOGRAPHY).is_file():
            free = (place / f"{done.command}-{stamp}{end}.json" for end in ("", *(f"-{n}" for n in range(2, 100))))
            path = next(path for path in free if not path.exists())
            with contextlib.suppress(UnwritableError):
                write_text(path, json_text(done.to_json()) + "\n")


def json_text(document: Any, *, indent: int | None = 2, default: Callable[[Any], str] | None = None) -> str:
    """Format a JSON document as every command writes it. NaN and infinity, which JSON does not have, become null.

    `default` gives the text of a value whose type JSON does not have.
    """
    import json  # every --help would pay for it

    return json.dumps(_finite(document), indent=indent, allow_nan=False, default=default)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remembered_teacher(directory: str | Path, commands: tuple[str, ...] = ("init", "distill")) -> str | None:
    """Return the teacher of a checkpoint's last record of these commands, None without one."""
    for entry in reversed(read_biography(directory)):
        if entry.command in commands and entry.config.get("teacher"):
            return str(entry.config["teacher"])
    return None


COLLAPSED, NO_BETTER = "collapsed", "no_better_than_constant"
FAILURES = {  # marks beside the scores of a model that learned nothing, and what they mean
    COLLAPSED: "predicts the same label for every row",
    NO_BETTER: "scores no better than predicting the most frequent label for every row",
}
