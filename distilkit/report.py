"""`report`: one table and one picture from what the commands left in their directories."""

import json
import math
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from distilkit import checkpoint
from distilkit.config import COMMANDS, CommonConfig, ReportConfig
from distilkit.errors import DistilkitError
from distilkit.options import build, fields_of, spell
from distilkit.record import Record, claim, read_biography, record, write_biography, write_text

PICTURE = "learning-curve"
COLUMNS = (  # the order of the table's columns; a metric that matches none has no column
    r"parameters",
    r"bytes",
    r"heldout_loss",
    r"(?!retention/)\w+/\w+",
    r"retention/\w+",
    r"(cpu|cuda)/.*/latency_ms_p50",
    r"speedup",
)


def report(config: ReportConfig) -> Record:
    """Write report.md and the learning curves of directories; the metrics are the table, a row a position.

    A row holds a checkpoint's size, the metrics of its last record, and what eval and bench found about it, where
    their --json was saved as eval*.json or bench*.json in one of the directories.
    Raises DistilkitError for a directory that nothing is known about, and without matplotlib.
    """
    names = dict(zip(map(Path, config.directories), labels(config.directories), strict=True))
    measured = {directory: saved_records(directory) for directory in names}
    rows = {directory: facts(directory, list(chain(*measured.values()))) for directory in names}
    for directory, row in rows.items():
        if not row and not curve(directory) and not measured[directory]:
            raise DistilkitError(f"nothing to report in '{directory}': give directories that distilkit wrote")
    metrics = {f"{i}/{name}": value for i, row in enumerate(rows.values()) for name, value in row.items()}
    with claim(config.output) as out:
        pictures = plot_curves(config.directories, out / PICTURE)
        write_text(out / "report.md", markdown(names, rows, pictures))
        done = record("report", config, metrics)
        write_biography(out, [done])
    return done


def labels(directories: Sequence[str]) -> list[str]:
    """Call each directory by its name, or by its path as typed where two have the same."""
    names = [Path(directory).resolve().name for directory in directories]
    return [name if names.count(name) == 1 else typed for name, typed in zip(names, directories, strict=True)]


def saved_records(directory: Path) -> list[Record]:
    """Read the eval and bench records that were saved in a directory."""
    found = []
    for path in sorted((*directory.glob("eval*.json"), *directory.glob("bench*.json"))):
        try:
            found.append(Record(**json.loads(path.read_text(encoding="utf-8"))))
            found[-1].config["models"]
        except (ValueError, TypeError, KeyError):
            raise DistilkitError(f"'{path}' is no record of models: write it with --json > {path.name}") from None
    return found


def facts(directory: Path, measured: Sequence[Record]) -> dict[str, float]:
    """Return everything with a column that is known about a checkpoint, in the columns' order."""
    known = weights(directory)
    biography = read_biography(directory)
    known |= biography[-1].metrics if biography else {}
    for found in measured:
        for position, model in enumerate(found.config["models"]):
            if Path(model).resolve() == directory.resolve():
                known |= metrics_of(found, position)
    return {name: known[name] for column in COLUMNS for name in sorted(known) if re.fullmatch(column, name)}


def metrics_of(found: Record, position: int) -> dict[str, float]:
    """Return the metrics that are about the model at a position."""
    if found.command == "eval" and len(found.config["models"]) == 1:
        return found.metrics
    prefix = f"{position}/"
    return {name.removeprefix(prefix): value for name, value in found.metrics.items() if name.startswith(prefix)}


def weights(directory: Path) -> dict[str, float]:
    """Count a checkpoint's parameters and bytes, {} where it has no weights; reads the headers only."""
    parameters = 0
    for path in directory.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as tensors:
                parameters += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise DistilkitError(f"'{path}' cannot be read ({error}): make the checkpoint again") from None
    size = checkpoint.weights_bytes(directory)
    return {"parameters": float(parameters), "bytes": float(size)} if size else {}


def curve(directory: Path) -> list[dict[str, Any]]:
    """Read the lines of a directory's train.jsonl, [] where there is none; a last line that was cut off is left out."""
    path = directory / "train.jsonl"
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise DistilkitError(f"'{path}' is damaged ({error}): leave out its directory") from None


def plot_curves(directories: Sequence[str], path: Path) -> list[Path]:
    """Draw training losses (faint; of masked LM where it is a part) and held-out ones (bold) over tokens.

    Writes path.png and path.svg and returns them; [] where no directory has a train.jsonl.
    Raises DistilkitError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    except ImportError:
        raise DistilkitError("report draws with matplotlib, which is missing: pip install 'distilkit[plots]'") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="tokens", ylabel="loss")
    for number, (label, directory) in enumerate(zip(labels(directories), directories, strict=True)):
        lines, color = curve(Path(directory)), f"C{number}"
        part = "mlm" if any("mlm" in line for line in lines) else "loss"  # what the held-out loss compares with
        draw(axes, lines, part, label=f"{label}, training", color=color, alpha=0.35, linewidth=0.8)
        draw(axes, lines, "heldout_loss", label=f"{label}, held out", color=color, linewidth=2.2, marker="o")
    if not axes.lines:
        return []
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.legend()
    pictures = [path.with_name(path.name + suffix) for suffix in (".png", ".svg")]
    for picture in pictures:
        figure.savefig(picture, dpi=150)
    return pictures


def draw(axes: Any, lines: Sequence[dict[str, Any]], key: str, **look: Any) -> None:
    """Draw one key over tokens, from the lines that carry it, if any do."""
    carrying = [line for line in lines if key in line]
    if carrying:
        axes.plot([line["tokens"] for line in carrying], [line[key] for line in carrying], **look)


def markdown(names: dict[Path, str], rows: dict[Path, dict[str, float]], pictures: Sequence[Path]) -> str:
    """Write the report: the table, the picture, and the commands that made each model."""
    found = {name for row in rows.values() for name in row}
    columns = [name for column in COLUMNS for name in sorted(found) if re.fullmatch(column, name)]
    table = ["| model | " + " | ".join(columns) + " |", "|:--|" + "--:|" * len(columns)]
    for directory, row in rows.items():
        cells = [readable(row[name]) if name in row else "" for name in columns]
        table.append(f"| {names[directory]} | " + " | ".join(cells) + " |")
    picture = [f"![Learning curves]({path.name})\n" for path in pictures if path.suffix == ".svg"]
    return "\n".join(
        ["# Report\n", *table, "", *picture, "## How each model was made\n", *map(details, names, names.values())]
    )


def readable(value: float) -> str:
    """Spell a number for a person."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def details(directory: Path, name: str) -> str:
    """Write a folded section with the commands that made a model and where they ran."""
    steps = read_biography(directory)
    commands = "\n".join(command_line(step) for step in steps) or "# no record"
    machine = ", ".join(f"{key} {value}" for key, value in steps[-1].environment.items()) if steps else ""
    return f"<details><summary>{name}</summary>\n\n```sh\n{commands}\n```\n\n{machine}\n</details>\n"


def command_line(step: Record) -> str:
    """Spell a record as the command that made it."""
    config_class = COMMANDS.get(step.command, CommonConfig)
    known = {item.name for item, _ in fields_of(config_class)}
    given = {name: value for name, value in step.config.items() if name in known and value is not None}
    return spell(step.command, build(config_class, {}, given))
