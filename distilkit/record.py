"""What a command did: the Record, a checkpoint's biography made of them, and claiming an output directory."""

import contextlib
import errno
import operator
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from distilkit.errors import DistilkitError

BIOGRAPHY = "distilkit.json"
PACKAGES = ("distilkit", "torch", "transformers", "accelerate", "datasets", "tokenizers")
UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG,
}  # fmt: skip
NESTED = ("*/run.json", "*/*/run.json", f"*/{BIOGRAPHY}", f"*/*/{BIOGRAPHY}")  # of several seeds, or tasks
COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


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
    """Make the record of a command that has just run; `environment` adds to versions and machine."""
    return Record(
        command=command,
        config=config_json(config),
        metrics=metrics,
        environment=_machine() | environment,
    )


def config_json(config: Any) -> dict[str, Any]:
    """Return a config's options as JSON holds them; local places are made absolute, so that they are found again."""
    return {
        item.name: _plain(getattr(config, item.name), place=item.metadata.get("place", False))
        for item in fields(config)
    }


def _plain(value: Any, *, place: bool) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(entry, place=place) for entry in value]
    if place and value and not Path(value).exists():
        return str(value)  # on the hub
    if isinstance(value, Path) or (place and value):
        return str(Path(value).absolute())
    return value


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
    """Read the records of a checkpoint, oldest first; [] for a checkpoint that distilkit didn't write."""
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
    """Write distilkit.json, atomically and last: present means that the directory is finished."""
    write_text(directory / BIOGRAPHY, json_text([entry.to_json() for entry in records]) + "\n")


def json_text(document: Any) -> str:
    """Spell a JSON document the way that every command writes it."""
    import json

    return json.dumps(document, indent=2)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def is_writable(folder: Path) -> bool:
    """Say whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def remembered_teacher(directory: str | Path, commands: tuple[str, ...] = ("init", "distill")) -> str | None:
    """Return the teacher that a checkpoint was extracted from or last distilled against, or other commands' teacher."""
    for entry in reversed(read_biography(directory)):
        if entry.command in commands and entry.config.get("teacher"):
            return str(entry.config["teacher"])
    return None


def is_claimable(output: Path) -> bool:
    """Say whether an output directory is absent or empty."""
    return not output.exists() or (output.is_dir() and not any(output.iterdir()))


@contextlib.contextmanager
def claim(output: Path, *, resume: bool = False, keep: str | None = None) -> Iterator[Path]:
    """Make the output directory, refuse one in use, and leave nothing behind where the command fails.

    `keep` names a pattern of files worth keeping (a training run's checkpoints): where one is there, a failed
    directory stays, so that --resume can go on from it.
    Raises DistilkitError where the directory isn't empty, is a file, or can't be written.
    """
    if resume:
        if (output / BIOGRAPHY).exists():
            raise DistilkitError(f"'{output}' is already finished: nothing to resume, choose another -o")
        signs = NESTED if keep and "/" in keep else ("run.json",)
        if not is_claimable(output) and not any(found for sign in signs for found in output.glob(sign)):
            raise DistilkitError(f"'{output}' holds something else than a run to go on with: choose another -o")
    elif not is_claimable(output):
        raise DistilkitError(f"output directory '{output}' is not empty: choose another -o, or empty it")
    existed = output.exists()
    try:
        make_directory(output)
        yield output
    except BaseException as error:
        if not resume and not (keep and any(output.glob(keep))):
            for leftover in output.iterdir() if output.is_dir() else ():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            if not existed and output.is_dir():
                output.rmdir()
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            place = error.filename or output  # may be a cache's
            raise DistilkitError(
                f"cannot write '{place}' ({error.strerror or error}): free space or choose another -o"
            ) from None
        raise


def make_directory(path: Path) -> None:
    """Make a directory and those above it. Raises DistilkitError where there can't be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as below /proc
        raise DistilkitError(f"cannot write '{path}' ({error.strerror}): choose another -o") from None


def unmet(requirements: tuple[str, ...], metrics: dict[str, float]) -> list[str]:
    """Return a line for each gate that isn't met, with the value found.

    A gate is `NAME OP NUMBER`, OP one of >= <= > <. NAME is a metric's full name, or leaves out a prefix (`speedup`
    means every metric whose name ends in `/speedup`), or else its last part (`retention`: every `retention/<task>`, but
    not `retention/<task>/low`). Metrics of a teacher or control, which nothing is asked of, go by full name only.
    Raises DistilkitError where a gate can't be read or names no metric.
    """
    lines = []
    for gate in requirements:
        name, compare, bound = parse_gate(gate)
        matching = {key: metrics[key] for key in named(name, metrics)}
        if not matching:
            import difflib  # here, because --help would pay for it

            near = difflib.get_close_matches(name, metrics, n=5, cutoff=0.4) or sorted(metrics)
            raise DistilkitError(f"--require '{gate}' names no metric: there are {', '.join(near[:5])}, …")
        lines += [f"{gate}: there is no {key}, the teacher's score is 0 or less" for key in undefined(name, metrics)]
        lines += [
            f"{gate}: {key} is {value:.6g}" for key, value in matching.items() if not COMPARISONS[compare](value, bound)
        ]
    return lines


def undefined(name: str, metrics: Iterable[str]) -> list[str]:
    """Return the retentions that a gate on all of them would mean, were there a score to keep."""
    pairs = (re.fullmatch(r"((?:\d+/)?)difference/([^/]+)/teacher", key) for key in metrics)
    keys = [f"{pair[1]}retention/{pair[2]}" for pair in pairs if pair]
    return [key for key in keys if name == "retention" and key not in metrics]


def named(name: str, metrics: Iterable[str]) -> list[str]:
    """Return the metrics that a gate's name means."""
    keys = [key for key in metrics if not re.match(r"(teacher|control(-\d+)?)/", key)]
    if name.partition("/")[0] not in ("retention", "difference"):  # which are named after what they compare
        keys = [key for key in keys if not re.match(r"(\d+/)?(retention|difference)/", key)]
    parents = {key: "/" + key.rpartition("/")[0] for key in keys}
    return (
        [key for key in metrics if key == name]
        or [key for key in keys if key.endswith("/" + name)]
        or [key for key, parent in parents.items() if parent.endswith("/" + name)]
    )


def parse_gate(gate: str) -> tuple[str, str, float]:
    """Split 'sst2/accuracy>=0.90' into its name, comparison and bound."""
    match = re.fullmatch(r"\s*([^<>=\s]+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*", gate)
    try:
        return match.group(1), match.group(2), float(match.group(3))  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        raise DistilkitError(f"--require '{gate}' can't be read: write it like 'sst2/accuracy>=0.90'") from None
