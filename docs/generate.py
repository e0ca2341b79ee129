"""Write docs/cli.md from the config classes; with --check, only say whether it is current.

With `architectures`, write docs/architectures.md instead: what init makes of a tiny teacher of every architecture.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from distilkit.options.declare import fields_of, flag
from distilkit.options.recipes import COMMANDS, recipe_names
from distilkit.options.training import CommonOptions

PAGE = Path(__file__).parent / "cli.md"
HEADER = """# Commands

This page is generated from the options' declarations by `make docs`.

Every command writes its result to stdout and everything else to stderr. It ends with 0 when done, 1 on an error that it
explains in one line, 2 on wrong usage, 3 where a `--require` gate isn't met, and 130 when interrupted.
An option is taken from the command line, else from the recipe, else from its default.
`distilkit --version` prints the version, `distilkit --help` and `distilkit COMMAND --help` print help.
"""
RECIPES = """## distilkit recipes [NAME]

List the shipped recipes ({names}), or print one: a TOML file with a table for each command, to copy and change.
"""
COMMON = (
    ("`--json`", "flag", "", "Print exactly one JSON document, the record, on stdout."),
    ("`--recipe`", "NAME\\|FILE", "", "Shipped recipe or TOML file to take options from."),
    ("`--help`", "flag", "", "Print help and stop."),
)


def page() -> str:
    """Return the whole page."""
    sections = [section(name, config_class) for name, config_class in COMMANDS.items()]
    return "\n".join([HEADER, *sections, RECIPES.format(names=", ".join(f"`{name}`" for name in recipe_names()))])


def section(name: str, config_class: type[CommonOptions]) -> str:
    """Describe a command: usage, what it does, its arguments, and its options by panel."""
    fields = fields_of(config_class)
    arguments = [item.metadata for item, _ in fields if item.metadata.get("positional")]
    panels: dict[str, list[tuple[str, ...]]] = {"Options": []}
    for item, kind in fields:
        if not item.metadata.get("positional"):
            panels.setdefault(item.metadata["panel"], []).append(row(item, kind))
    common = panels.pop("Common")
    usage = " ".join(["distilkit", name, *(meta["metavar"] for meta in arguments)])
    lines = [f"## {usage}\n", f"{config_class.__doc__}\n"]
    lines += [f"- `{meta['metavar']}`: {meta['help']}" for meta in arguments]
    lines += [""] if arguments else []
    for panel, rows in {**panels, "Common": [*common, *COMMON]}.items():
        lines += [f"| {panel} | | default | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(cells)} |" for cells in rows] + [""]
    return "\n".join(lines)


def row(item: dataclasses.Field[Any], kind: Any) -> tuple[str, ...]:
    """Describe an option: its names, values, default and help."""
    names = ", ".join(f"`{name}`" for name in (item.metadata["short"], flag(item.name)) if name)
    return names, values(item, kind), default(item), item.metadata["help"].replace("|", "\\|")


def values(item: dataclasses.Field[Any], kind: Any) -> str:
    """Say what an option takes."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is bool:
        return "flag"
    limits = (("from", item.metadata["min"]), ("to", item.metadata["max"]))
    bounds = [f"{word} {limit:.10g}" for word, limit in limits if limit is not None]
    name = item.metadata["metavar"] or {int: "integer", float: "number", str: "text"}.get(kind, "text")
    repeated = ", repeatable" if get_origin(kind) is tuple and not item.metadata["metavar"] else ""
    return " ".join([name.replace("|", "\\|") + repeated, *bounds])


def default(item: dataclasses.Field[Any]) -> str:
    """Spell an option's default; a required option says so."""
    if item.default is dataclasses.MISSING:
        return "required"
    if instead := item.metadata.get("unless"):
        return f"required without `{flag(instead)}`"
    if item.default is None or item.default is False or item.default == ():
        return ""
    value = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
    return f"`{value}`"


ARCHITECTURES = """# Architectures

This table has every architecture that transformers {version} maps to masked language modelling.
Each was tried on a tiny teacher of {layers} layers with random weights, and a test repeats the trial.
`make docs` generates the page from those trials.

A student is *exact* if

- its tensors equal the teacher's bit by bit;
- every per-layer list in its config is shortened accordingly;
- plain `AutoModelForMaskedLM.from_pretrained` reports no missing or unexpected key;
- its logits equal those of the teacher with the dropped layers skipped: the largest difference is 0 on a CPU in fp32.

If the default choice of layers cannot be exact, the table quotes the error of `init` and gives the result of what it
suggests.

| model type | class | result | largest difference |
|---|---|---|--:|
"""


def architectures() -> str:
    """Return the page about architectures; takes a minute."""
    sys.path.insert(0, str(PAGE.parent.parent / "tests"))
    import tempfile

    import transformers
    from architectures import LAYERS, NAMES, try_init  # type: ignore[import-not-found, unused-ignore]

    def row(name: str) -> str:
        with tempfile.TemporaryDirectory() as place:
            return str(try_init(name, Path(place)).markdown())

    head = ARCHITECTURES.format(version=transformers.__version__.rpartition(".")[0], layers=LAYERS)
    return head + "".join(f"{row(name)}\n" for name in NAMES)


def main(arguments: list[str]) -> int:
    """Write the page, or check it; returns the exit code."""
    if arguments == ["architectures"]:
        PAGE.with_name("architectures.md").write_text(architectures(), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        if not current:
            print("docs/cli.md is not current: run make docs", file=sys.stderr)
        return 0 if current else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
