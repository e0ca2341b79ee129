"""Declare an option once: a field of a frozen dataclass, with a Spec in its metadata.

The command line, recipes, Python keywords, records and docs/cli.md are all made from these fields.
"""

import dataclasses
import inspect
import types
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin

PANELS = (  # of --help, in order of need
    "Input and output",
    "Task",
    "Export",
    "Comparison",
    "Objective",
    "Training",
    "Measurement",
    "Student",
    "Teacher cache",
    "SQuAD",
    "Advanced",
    "Common",
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Spec:
    """What an option takes and how it is shown."""

    help: str
    short: str = ""
    min: float | None = None
    max: float | None = None
    metavar: str | None = None
    panel: str = ""  # "" stands for the panel of the options class
    positional: bool = False
    is_path: bool = False  # a file, a directory, or something on the hub
    replaces: str = ""  # an option that has no effect if this one is given
    required_unless: str = ""  # an option without which this one is required, despite its default
    recorded: bool = True


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    short: str = "",
    min: float | None = None,
    max: float | None = None,
    metavar: str | None = None,
    panel: str = "",
    is_path: bool = False,
    replaces: str = "",
    required_unless: str = "",
    recorded: bool = True,
) -> Any:
    """Declare an option; for the arguments see Spec. Without a default it is required."""
    spec = Spec(
        help=help, short=short, min=min, max=max, metavar=metavar, panel=panel, is_path=is_path, replaces=replaces,
        required_unless=required_unless, recorded=recorded,
    )  # fmt: skip
    return field(default=default, metadata={"spec": spec})


def argument(help: str, metavar: str, default: Any = dataclasses.MISSING) -> Any:
    """Declare a positional argument."""
    spec = Spec(help=help, metavar=metavar, positional=True, is_path=True, panel=PANELS[0])
    return field(default=default, metadata={"spec": spec})


PLAIN = Spec(help="")


def spec_of(item: dataclasses.Field[Any]) -> Spec:
    """Return a field's Spec; a default Spec for a plain field."""
    found: Spec = item.metadata.get("spec", PLAIN)
    return found


def flag(name: str) -> str:
    """Spell a field's name as the flag that a user types."""
    return "--" + name.replace("_", "-")


def typed_name(item: dataclasses.Field[Any]) -> str:
    """Spell an option as --help shows it: its flag, or the placeholder of a positional argument."""
    spec = spec_of(item)
    return spec.metavar if spec.positional and spec.metavar else flag(item.name)


def base_type(annotation: Any) -> Any:
    """Strip `| None` from an annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def fields_of(options_class: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """List the fields of an options class with their types: positional ones, then panel by panel, its own first."""

    def place(item: dataclasses.Field[Any]) -> tuple[int, bool]:
        panel = -1 if spec_of(item).positional else PANELS.index(spec_of(item).panel)
        return panel, item.name not in inspect.get_annotations(options_class)

    return [(item, base_type(item.type)) for item in sorted(dataclasses.fields(options_class), key=place)]


def is_list(item: dataclasses.Field[Any], kind: Any) -> bool:
    """Say whether an option is typed as one list, like 1,8, rather than once for each entry."""
    return get_origin(kind) is tuple and spec_of(item).metavar is not None and not spec_of(item).positional


def bounds(spec: Spec) -> str:
    """Spell the range of a number: " from 0 to 1", or "" for a number without bounds."""
    words = (("from", spec.min), ("to", spec.max))
    return "".join(f" {word} {limit:.10g}" for word, limit in words if limit is not None)
