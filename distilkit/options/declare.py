"""How an option is declared, spelled and filled in: a field of a config class, whose metadata says the rest.

The command line, the recipes, the records and docs/cli.md are all made from these fields.
"""

import dataclasses
import types
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from distilkit.errors import DistilkitError

C = TypeVar("C")
# in the order of --help; "" is positional
PANELS = ("", "Options", "Objective", "Teacher cache", "SQuAD", "Training", "Common")


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    short: str = "",
    min: float | None = None,
    max: float | None = None,
    metavar: str | None = None,
    panel: str = "Options",
    place: bool = False,
    instead: str = "",
) -> Any:
    """Declare an option: a keyword of the config class and a flag of the command.

    `place` marks what names a file or directory (or something on the hub), `instead` names an option that is passed
    over where this one is given.
    """
    metadata = {
        "help": help, "short": short, "min": min, "max": max, "metavar": metavar, "panel": panel, "place": place,
        "instead": instead,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


def argument(help: str, metavar: str, default: Any = dataclasses.MISSING) -> Any:
    """Declare a positional argument."""
    return field(default=default, metadata={"help": help, "metavar": metavar, "positional": True, "place": True})


def inherit(parent: type, name: str, default: Any, *, help: str = "", unless: str = "") -> Any:
    """Redeclare an option of `parent` with another default, perhaps another help, and the same everything else.

    `unless` names another option, without which this one is required though it has a default.
    """
    inherited = next(item for item in dataclasses.fields(parent) if item.name == name)
    changes = {key: value for key, value in (("help", help), ("unless", unless)) if value}
    return field(default=default, metadata={**inherited.metadata, **changes})


def flag(name: str) -> str:
    """Spell a field's name as the flag that a user types."""
    return "--" + name.replace("_", "-")


def command_line(command: str, config: Any) -> str:
    """Spell the command line that gives this config, leaving out what is default anyway."""
    import shlex

    words = ["distilkit", command]
    for item, _ in fields_of(type(config)):
        value = getattr(config, item.name)
        if item.metadata.get("positional"):
            words += [value] if isinstance(value, str) else list(value)
        elif value is True:
            words.append(flag(item.name))
        elif value is not None and value != item.default:
            name = item.metadata["short"] or flag(item.name)
            repeated = isinstance(value, tuple) and item.metadata["metavar"] is None
            entries = value if repeated else [",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
            words += [word for entry in entries for word in (name, entry)]
    return shlex.join(words)


def base_type(annotation: Any) -> Any:
    """Strip `| None` from an annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def fields_of(config_class: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """List the fields of a config class with their types: positional ones first, then panel by panel."""
    fields = sorted(dataclasses.fields(config_class), key=lambda item: PANELS.index(item.metadata.get("panel", "")))
    return [(item, base_type(item.type)) for item in fields]


def shown_default(item: dataclasses.Field[Any]) -> str:
    """Spell a field's default behind its help, where there is one to show."""
    default = item.default
    if default is None or default is False or default is dataclasses.MISSING or default == ():
        return ""
    return f" [default: {','.join(map(str, default)) if isinstance(default, tuple) else default}]"


def build(config_class: type[C], given: dict[str, Any], recipe: dict[str, Any] | None = None) -> C:
    """Merge defaults, a recipe's table and what was typed (the later wins), and check the recipe's values.

    Raises DistilkitError for an unknown key and a value of the wrong type or out of range.
    """
    known = {item.name: (item, kind) for item, kind in fields_of(config_class)}
    values: dict[str, Any] = {}
    for key, value in (recipe or {}).items():
        name = key.replace("-", "_")
        if name not in known:
            import difflib  # here, like shlex below, because --help would pay for it

            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(known))}"
            raise DistilkitError(f"unknown recipe key '{key}': {hint}")
        values[name] = _checked(known[name][0], known[name][1], value)
    given = {name: value for name, value in given.items() if value is not None}
    for name, (item, _) in known.items():
        rivals = {name, item.metadata.get("instead") or name}
        typed = rivals & given.keys()
        if len(typed) > 1:
            raise DistilkitError(f"{flag(name)} is instead of {flag(item.metadata['instead'])}: give one of them")
        if typed:  # then the recipe's is for something else
            values = {key: value for key, value in values.items() if key not in rivals}
    values |= given
    return config_class(**values)


def missing(config_class: type, typed: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """List the flags of required options that neither the command line nor the recipe gives.

    One that is required unless another is given is listed with it: "--task or --agreement".
    """
    given = {*typed, *(key.replace("-", "_") for key in recipe)}
    return [
        " or ".join(map(flag, alternatives(item)))
        for item, _ in fields_of(config_class)
        if alternatives(item) and given.isdisjoint(alternatives(item))
    ]


def alternatives(item: dataclasses.Field[Any]) -> list[str]:
    """Name the options of which one has to be given: a required one itself, or with another in its stead; else none."""
    instead = item.metadata.get("unless")
    if instead:
        return [item.name, instead]
    return [item.name] if item.default is dataclasses.MISSING else []


def _checked(item: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    def refuse(expected: str) -> DistilkitError:
        return DistilkitError(f"recipe key '{item.name}' is {value!r}: give {expected}")

    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise refuse(f"one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        element = get_args(kind)[0]
        entries = value if isinstance(value, list) else [value]
        if not all(type(entry) is element for entry in entries):
            raise refuse(f"a list of {element.__name__}")
        return tuple(entries)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise refuse(f"a value of type {kind.__name__}")
    low, high = item.metadata.get("min"), item.metadata.get("max")
    if (low is not None and value < low) or (high is not None and value > high):
        raise refuse(f"a number {'' if low is None else f'from {low} '}{'' if high is None else f'to {high}'}".strip())
    return value
