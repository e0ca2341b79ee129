"""Call a command by its name: what the command line and the functions of `distilkit` share."""

import dataclasses
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Any, get_args, get_origin

from distilkit.errors import DistilkitError, model_errors, system_errors
from distilkit.gates import parse_gate, unmet_budget, unmet_gates
from distilkit.options.declare import Options, build, missing
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.predict import PredictOptions
from distilkit.options.recipes import COMMANDS, read_recipe
from distilkit.options.spec import base_type, fields_of, flag, spec_of
from distilkit.options.training import CommonOptions
from distilkit.options.values import did_you_mean
from distilkit.preflight import check_places
from distilkit.progress import level, waiting
from distilkit.record import Record

MODULES = {"eval": "evaluate"}  # commands whose file has another name


def run(command: str, options: CommonOptions) -> Record:
    """Run a command.

    Raises DistilkitError if it cannot do its work, or if a gate cannot be read.
    """
    for name in ("require", "budget"):  # checked before the work, which may take hours
        for gate in getattr(options, name, ()):
            _, _, bound = parse_gate(gate, f"--{name}")
            if bound.relative and not isinstance(options, EvalOptions):
                raise DistilkitError(f"--require '{gate}': only eval compares with a baseline, so give a number")
    check_places(command, options)
    check_rows(options)
    name = MODULES.get(command, command)
    with level(quiet=options.quiet), waiting("loading PyTorch and transformers"):
        function = getattr(importlib.import_module(f"distilkit.commands.{name}"), name)
    with level(quiet=options.quiet, verbose=options.verbose):
        try:
            with model_errors(), system_errors(*memory_options(options)):
                done: Record = function(options)
        except DistilkitError as error:
            if options.verbose and error.__cause__:
                traceback.print_exception(error.__cause__, file=sys.stderr)
            raise
    return done


def memory_options(options: CommonOptions) -> list[str]:
    """Return the options of a command whose lower value takes less memory."""
    return [flag(name) for name in ("batch_size", "max_length", "seq_length") if hasattr(options, name)]


def check_rows(options: CommonOptions) -> None:
    """Find mistakes about a user's own rows before PyTorch is loaded. Raises DistilkitError as the command would."""
    if not getattr(options, "data", None):
        return
    from distilkit.data import own_rows  # loads pyarrow, which other commands need not wait for

    if isinstance(options, FinetuneOptions):
        own_rows.with_own_rows(options)
    if isinstance(options, EvalOptions) and options.models:
        own_rows.with_recorded_task(options, options.models[0])
    if isinstance(options, PredictOptions):
        own_rows.with_text_columns(options)


def make_function(command: str) -> Callable[..., Record]:
    """Return a command as a function: positional arguments as on the command line, options as keywords.

    Options are checked as on the command line. The function returns a Record. It raises DistilkitError
    for everything that the command line reports in one line, including unmet gates (`require=`).
    """
    options_class = COMMANDS[command]

    def call(*arguments: Any, **keywords: Any) -> Record:
        given = bind(options_class, command, arguments, keywords)
        given = {name: value for name, value in given.items() if value is not None}
        table = read_recipe(given["recipe"], command) if given.get("recipe") else {}
        if lacking := missing(options_class, given, table):
            raise DistilkitError(f"missing option '{lacking[0].replace('--', '').replace('-', '_')}'")
        options = build(options_class, given, table)
        done = run(command, options)
        unmet = unmet_gates(getattr(options, "require", ()), done.metrics)
        if failures := [*unmet, *unmet_budget(getattr(options, "budget", ()), done.metrics)]:
            raise DistilkitError(f"gate not met: {'; '.join(failures)}")
        return done

    call.__name__ = call.__qualname__ = command
    call.__doc__ = inspect.getdoc(options_class)
    call.__signature__ = signature(options_class)  # type: ignore[attr-defined]
    return call


def signature(options_class: type[Options]) -> inspect.Signature:
    """Return the signature of a command's function, for help() and the tooltips of a notebook."""
    fields = [(item, kind) for item, kind in fields_of(options_class) if item.name != "json"]  # it is about stdout
    return inspect.Signature([_parameter(item, kind) for item, kind in fields], return_annotation=Record)


def _parameter(item: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    positional = spec_of(item).positional
    if positional and get_origin(kind) is tuple:
        return inspect.Parameter(item.name, inspect.Parameter.VAR_POSITIONAL, annotation=get_args(kind)[0])
    form = inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY
    default = inspect.Parameter.empty if item.default is dataclasses.MISSING else item.default
    return inspect.Parameter(item.name, form, default=default, annotation=item.type)


def bind(
    options_class: type[Options], command: str, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a call, by name. Raises DistilkitError for an option that is unknown or given twice."""
    fields = [item for item, _ in fields_of(options_class)]
    for name in keywords:
        if name not in {item.name for item in fields}:
            hint = did_you_mean(name, [item.name for item in fields])
            raise DistilkitError(f"distilkit.{command} has no option '{name}'{hint}")
    positional = next((item for item in fields if spec_of(item).positional), None)
    if not arguments:
        return keywords
    if positional is None or positional.name in keywords:
        raise DistilkitError(
            f"distilkit.{command} takes options by keyword: pass {arguments[0]!r} as a keyword argument"
        )
    if get_origin(base_type(positional.type)) is tuple:
        return keywords | {positional.name: arguments}
    if len(arguments) > 1:
        raise DistilkitError(
            f"distilkit.{command} takes one argument and keywords: pass {arguments[1]!r} as a keyword argument"
        )
    return keywords | {positional.name: arguments[0]}
