"""Write docs/cli.md and distilkit/__init__.pyi from the options; with --check, only say whether they are current.

With `architectures`, write docs/architectures.md instead: what init makes of a tiny teacher of every architecture.
With `exports`, write docs/reference/exports.md: what export makes of some of them.
"""

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from distilkit.options.recipes import COMMANDS, recipe_names
from distilkit.options.spec import base_type, bounds, fields_of, flag, spec_of
from distilkit.options.training import CommonOptions

PAGE = Path(__file__).parent / "cli.md"
STUB = Path(__file__).parent.parent / "distilkit/__init__.pyi"
HEADER = """# Commands

This page is generated from the options' declarations by `make docs`.

Every command writes its result to stdout and everything else to stderr.

| exit code | meaning |
|--:|---|
| 0 | done |
| 1 | an error, explained in one line |
| 2 | wrong usage |
| 3 | a `--require` gate is not met, or no student is within `--budget` |
| 130 | interrupted |

A value on the command line overrides the recipe's, which overrides the default.
`distilkit --version` prints the version. `distilkit --help` and `distilkit COMMAND --help` print help.
`distilkit --install-completion` installs completion for your shell.
"""
RECIPES = """## distilkit recipes [NAME]

List the shipped recipes ({names}), or print one.
A recipe is a TOML file with one table per command. Print one, save it, change it, and pass it as `--recipe FILE`.
"""


def page() -> str:
    """Return the whole page."""
    sections = [section(name, config_class) for name, config_class in COMMANDS.items()]
    return "\n".join([HEADER, *sections, RECIPES.format(names=", ".join(f"`{name}`" for name in recipe_names()))])


def section(name: str, options_class: type[CommonOptions]) -> str:
    """Describe a command: usage, what it does, its arguments, examples, and its options by panel."""
    fields = fields_of(options_class)
    arguments = [spec_of(item) for item, _ in fields if spec_of(item).positional]
    panels: dict[str, list[tuple[str, ...]]] = {}
    for item, kind in fields:
        if not spec_of(item).positional:
            panels.setdefault(spec_of(item).panel, []).append(row(item, kind))
    panels["Common"].append(("`--help`, `-h`", "flag", "", "Print help and stop."))
    usage = " ".join(["distilkit", name, *(spec.metavar or "" for spec in arguments)])
    lines = [f"## {usage}\n", f"{inspect.getdoc(options_class)}\n"]
    lines += [f"- `{spec.metavar}`: {spec.help}" for spec in arguments]
    lines += [""] if arguments else []
    lines += ["```sh", *options_class.usage, "```", ""]
    for panel, rows in panels.items():
        lines += [f"| {panel} | | default | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(cells)} |" for cells in rows] + [""]
    return "\n".join(lines)


def row(item: dataclasses.Field[Any], kind: Any) -> tuple[str, ...]:
    """Describe an option: its names, values, default and help."""
    spec = spec_of(item)
    names = ", ".join(f"`{name}`" for name in (spec.short, flag(item.name)) if name)
    return names, values(item, kind), default(item), spec.help.replace("|", "\\|")


def values(item: dataclasses.Field[Any], kind: Any) -> str:
    """Say what an option takes."""
    spec = spec_of(item)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is bool:
        return "flag"
    name = spec.metavar or {int: "integer", float: "number", str: "text"}.get(kind, "text")
    repeated = ", repeatable" if get_origin(kind) is tuple and not spec.metavar else ""
    return name.replace("|", "\\|") + repeated + bounds(spec)


def default(item: dataclasses.Field[Any]) -> str:
    """Spell an option's default; a required option says so."""
    if item.default is dataclasses.MISSING:
        return "required"
    if other := spec_of(item).required_unless:
        return f"required without `{flag(other)}`"
    if item.default is None or item.default is False or item.default == ():
        return ""
    value = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
    return f"`{value}`"


STUB_HEAD = '''"""Types of distilkit's functions. Generated from the options by `make docs`; do not edit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from distilkit.distillation.text_objective import Distillation as Distillation
from distilkit.encoders.layer_selection import spread as spread
from distilkit.encoders.layers import extract as extract
from distilkit.errors import DistilkitError as DistilkitError
from distilkit.record import Record as Record
from distilkit.training.loop import train as train

__version__: str

'''


def stub() -> str:
    """Return distilkit/__init__.pyi: a typed signature for each command."""
    functions = [signature(name, options_class) for name, options_class in COMMANDS.items()]
    return STUB_HEAD + "\n".join(functions) + "\nevaluate = eval\n"


def signature(name: str, options_class: type[CommonOptions]) -> str:
    """Spell a command as a function with its options as keywords."""
    lines = [f"def {name}("]
    fields = [(item, kind) for item, kind in fields_of(options_class) if item.name != "json"]
    for item, kind in fields:
        if spec_of(item).positional:
            several = get_origin(kind) is tuple
            required = item.default is dataclasses.MISSING
            lines.append(f"    *{item.name}: str | Path," if several else f"    {item.name}: str | Path,")
            assert several or required
    lines += [] if any(line.startswith("    *") for line in lines) else ["    *,"]
    for item, kind in fields:
        if not spec_of(item).positional:
            needed = item.default is dataclasses.MISSING
            lines.append(f"    {item.name}: {type_text(item, kind)}{'' if needed else ' = ...'},")
    return "\n".join([*lines, ") -> Record:", f'    """{(inspect.getdoc(options_class) or "").splitlines()[0]}"""', ""])


def type_text(item: dataclasses.Field[Any], kind: Any) -> str:
    """Spell the type of a keyword."""
    optional = " | None" if item.default is None or base_type(item.type) is not item.type else ""
    if get_origin(kind) is tuple:
        element = type_name(get_args(kind)[0])
        return f"Sequence[{element}] | {element}{optional}"
    return ("str | Path" if kind is str and spec_of(item).is_path else type_name(kind)) + optional


def type_name(kind: Any) -> str:
    """Spell a single type; paths may be given as text and text as a path."""
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(repr(choice) for choice in get_args(kind))}]".replace("'", '"')
    return "str | Path" if kind is Path else str(kind.__name__)


ARCHITECTURES = """# Architectures

This table lists every architecture for which transformers {version} has a masked-LM class.
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


EXPORTS = """# Exports

A tiny masked-LM checkpoint of each architecture, with {layers} layers and random weights, was exported with
transformers {version} and compared with its checkpoint on random batch sizes, lengths and padding. The numbers are the
largest differences of a logit.
`python docs/generate.py exports` generates this page, and a slow test repeats the trial.

| model type | {formats} |
|---|{rule}
"""


def exports() -> str:
    """Return the page about exports; takes minutes."""
    sys.path.insert(0, str(PAGE.parent.parent / "tests"))
    import tempfile

    import transformers
    from exports import FORMATS, LAYERS, NAMES, try_export  # type: ignore[import-not-found, unused-ignore]

    version = transformers.__version__.rpartition(".")[0]
    text = EXPORTS.format(version=version, layers=LAYERS, formats=" | ".join(FORMATS), rule="--:|" * len(FORMATS))
    for name in NAMES:
        with tempfile.TemporaryDirectory() as place:
            text += f"{try_export(name, Path(place)).markdown()}\n"
    return text


def main(arguments: list[str]) -> int:
    """Write the page, or check it; returns the exit code."""
    if arguments == ["architectures"]:
        PAGE.with_name("architectures.md").write_text(architectures(), encoding="utf-8")
        return 0
    if arguments == ["exports"]:
        PAGE.with_name("reference").joinpath("exports.md").write_text(exports(), encoding="utf-8")
        return 0
    pages = {PAGE: page(), STUB: stub()}
    if arguments == ["--check"]:
        stale = [path for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text]
        for path in stale:
            print(f"{path.name} is not current: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
