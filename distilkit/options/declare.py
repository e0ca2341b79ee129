"""The base of all options classes, and how defaults, recipes and given values come together."""

import dataclasses
import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from distilkit.errors import DistilkitError, OptionError
from distilkit.options.spec import PANELS, fields_of, flag, is_list, spec_of, typed_name
from distilkit.options.values import check, did_you_mean

O = TypeVar("O", bound="Options")  # noqa: E741 - the class of a command's options


class Options:
    """Base of all options classes. It checks every value: from the command line, a recipe, Python or a record.

    `panel` is the --help panel of the options that a class declares. `defaults` replaces the defaults of inherited
    options, `helps` their help texts.
    Raises OptionError for a value that an option does not take, DistilkitError for options that do not go together.
    """

    usage: ClassVar[tuple[str, ...]] = ()  # command lines at the foot of --help

    def __init_subclass__(
        cls, panel: str = PANELS[0], defaults: Mapping[str, Any] = types.MappingProxyType({}),
        helps: Mapping[str, str] = types.MappingProxyType({}),
    ) -> None:  # fmt: skip
        cls.__annotations__ = annotations = inspect.get_annotations(cls)
        for name in tuple(annotations):
            if isinstance(declared := cls.__dict__.get(name), dataclasses.Field):
                spec = declared.metadata["spec"]
                changed = dataclasses.replace(spec, panel=spec.panel or panel)
                setattr(cls, name, field(default=declared.default, metadata={"spec": changed}))
        for name in {**defaults, **helps}:
            inherited = next(found for base in cls.__mro__[1:] for found in _fields(base) if found.name == name)
            spec = inherited.metadata["spec"]
            changed = dataclasses.replace(spec, help=helps.get(name, spec.help))
            annotations[name] = inherited.type
            default = defaults.get(name, inherited.default)
            setattr(cls, name, field(default=default, metadata={"spec": changed}))

    def __post_init__(self) -> None:
        for item, kind in fields_of(type(self)):
            try:
                value = check(item, kind, getattr(self, item.name))
            except ValueError as error:
                raise OptionError(f"{typed_name(item)} {_shown(getattr(self, item.name))}: give {error}") from None
            object.__setattr__(self, item.name, value)
        if broken := list(self.rules()):
            raise DistilkitError("; ".join(broken))

    def rules(self) -> Iterator[str]:
        """Yield an error line for each rule between options that is broken."""
        yield from ()

    def unused(self, names: tuple[str, ...], reason: str) -> Iterator[str]:
        """Yield an error line for each of these options that is given though it has no effect."""
        for item in _fields(type(self)):
            if item.name in names and getattr(self, item.name) != item.default:
                yield f"{flag(item.name)} {reason}"


def _fields(base: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(base) if dataclasses.is_dataclass(base) else ()


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, (str, Path)) else str(value)


def build(options_class: type[O], given: dict[str, Any], recipe: dict[str, Any] | None = None) -> O:
    """Return a command's options: its defaults, overridden by a recipe's table, overridden by the given values.

    Raises DistilkitError for an unknown recipe key and for a value that its option does not take.
    """
    known = {item.name: (item, kind) for item, kind in fields_of(options_class)}
    keys = known.keys() - {"recipe"}  # a recipe does not name another one
    values: dict[str, Any] = {}
    for key, value in (recipe or {}).items():
        name = key.replace("-", "_")
        if name not in keys:
            hint = did_you_mean(name, keys) or f": known keys are {', '.join(sorted(keys))}"
            raise DistilkitError(f"unknown recipe key '{key}'{hint}")
        try:
            values[name] = check(*known[name], value)
        except ValueError as error:
            raise DistilkitError(f"recipe key '{name}' is {value!r}: give {error}") from None
    given = {name: value for name, value in given.items() if value is not None}
    for name, (item, _) in known.items():
        replaced = spec_of(item).replaces
        rivals = {name, replaced or name}
        typed = rivals & given.keys()
        if len(typed) > 1:
            raise DistilkitError(f"use either {flag(name)} or {flag(replaced)}, not both")
        if typed:  # drop the recipe's values of both options
            values = {key: value for key, value in values.items() if key not in rivals}
    return options_class(**values | given)


def missing(options_class: type, given: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """List the flags of required options that neither the command line nor the recipe gives.

    An option that another one can replace is listed together with it: "--task or --agreement".
    """
    names = {*given, *(key.replace("-", "_") for key in recipe)}
    return [
        " or ".join(map(flag, alternatives(item)))
        for item, _ in fields_of(options_class)
        if alternatives(item) and names.isdisjoint(alternatives(item))
    ]


def alternatives(item: dataclasses.Field[Any]) -> list[str]:
    """Return the names of the options of which one must be given; [] if this option is optional."""
    if spec_of(item).required_unless:
        return [item.name, spec_of(item).required_unless]
    return [item.name] if item.default is dataclasses.MISSING else []


def command_line(command: str, options: Options) -> str:
    """Return the command line that gives these options; options with their default value are left out."""
    import shlex  # only few commands need it, and every --help would pay for it

    words = ["distilkit", command]
    for item, kind in fields_of(type(options)):
        value, spec = getattr(options, item.name), spec_of(item)
        if spec.positional:
            words += [value] if isinstance(value, str) else list(value)
        elif value is True and spec.recorded:
            words.append(flag(item.name))
        elif value is not None and value != item.default and spec.recorded:
            entries = value if isinstance(value, tuple) else [str(value)]
            entries = [",".join(map(str, value))] if is_list(item, kind) else entries
            words += [word for entry in entries for word in (spec.short or flag(item.name), entry)]
    return shlex.join(words)
