"""The report as Markdown, and the pieces of Markdown that a model card is made of too."""

import re
from collections.abc import Sequence

from distilkit.comparison import Cell, Table
from distilkit.gaps import Gap
from distilkit.headline import sentence, subject, tiles, title
from distilkit.plots import Plot
from distilkit.results import Model, Results
from distilkit.steps import Step, machines


def markdown(
    results: Results, tables: Sequence[Table], plots: Sequence[Plot], steps: Sequence[Step], gaps: Sequence[Gap]
) -> str:
    """Return the whole report as Markdown; the plots lie beside it."""
    main = subject(results)
    pictures = [f"![{escape(plot.description)}]({plot.name}.svg)" for plot in plots]
    return join(
        f"# {escape(title(results))}",
        *(about(results, main) if main else ()),
        *(
            piece
            for table in tables
            if table.rows
            for piece in (f"## {table.title}", grid(table), escape(table.caption))
        ),
        *(["## Plots", *pictures] if pictures else ()),
        *(["## What is missing", *map(missing, gaps)] if gaps else ()),
        *(["## How it was made", *made(steps)] if steps else ()),
    )


def join(*blocks: str) -> str:
    """Put blocks below each other, an empty line between them."""
    return "\n\n".join(block for block in blocks if block) + "\n"


def about(results: Results, model: Model) -> list[str]:
    """Say what a model was made from, and the figures of the headline."""
    figures = [
        f"- **{escape(shown.figure)}** {escape(shown.label)}: {escape(shown.detail)}" for shown in tiles(results, model)
    ]
    return [escape(sentence(results, model)), "\n".join(figures)]


def grid(table: Table) -> str:
    """Lay a table out."""
    lines = [[joined(cell) for cell in row] for row in (table.heads, *table.rows)]
    rule = ["---", *["--:"] * (len(table.heads) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def joined(cell: Cell) -> str:
    """Lay out a cell: its text, and its note in brackets."""
    return escape(f"{cell.text} ({cell.note})" if cell.note else cell.text)


def missing(gap: Gap) -> str:
    """Say what is missing, with the command that finds it out."""
    return join(f"- {escape(gap.text)}", indent(fence(gap.command)) if gap.command else "").rstrip()


def indent(text: str) -> str:
    """Put a block under a list's item."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def made(steps: Sequence[Step]) -> list[str]:
    """List the commands in order, and where they ran."""
    commands = [
        f"# {number}. {one_line(step.outcome or step.title)}\n{step.command}" for number, step in enumerate(steps, 1)
    ]
    places = [
        f"- Steps {', '.join(map(str, numbers))}: "
        + escape(", ".join(f"{name} {value}" for name, value in where.items()))
        for where, numbers in machines(steps)
        if where
    ]
    return [fence("\n\n".join(commands)), "\n".join(places)]


def fence(text: str) -> str:
    """Show text as it is."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}sh\n{text}\n{ticks}"


def escape(text: str) -> str:
    """Spell text so that Markdown shows it as it is, on one line and in a table too."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain)


def one_line(text: str) -> str:
    """Put text on one line."""
    return " ".join(text.split())
