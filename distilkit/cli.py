"""The command line: options -> flags, record -> output, error -> exit code. The only file that knows typer.

Each command's heavy imports are in its body, so that --help loads nothing heavy.
"""

import contextlib
import dataclasses
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from distilkit import __version__, progress
from distilkit.errors import DistilkitError, OptionError
from distilkit.files import writing
from distilkit.formatting import printable, shorten
from distilkit.gates import unmet_budget, unmet_gates
from distilkit.options.declare import build, missing
from distilkit.options.recipes import COMMANDS, read_recipe, recipe_names, recipe_text
from distilkit.options.spec import Spec, bounds, fields_of, flag, is_list, spec_of
from distilkit.options.training import CommonOptions
from distilkit.options.values import parse
from distilkit.screen import show
from distilkit.signals import stopping_signals

SUMMARY = "Compress any BERT-family checkpoint the way DistilBERT was made, and measure what it keeps."
app = typer.Typer(
    name="distilkit",
    help=SUMMARY,
    no_args_is_help=True,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
TYPE_NAMES = {int: "INT", float: "NUMBER", str: "TEXT"}
OTHER_NAMES = {  # of options in transformers' training scripts
    "--teacher-model": "--teacher", "--train-file": "--data", "--dataset": "--data",
    "--output-dir": "--output", "--resume-from-checkpoint": "--resume",
    "--learning-rate": "--lr", "--num-train-epochs": "--epochs", "--num-epochs": "--epochs", "--max-steps": "--steps",
    "--per-device-train-batch-size": "--batch-size", "--train-batch-size": "--batch-size",
    "--gradient-accumulation-steps": "--accumulate", "--warmup-ratio": "--warmup", "--warmup-steps": "--warmup",
    "--eval-steps": "--evaluate-every", "--save-steps": "--checkpoint-every", "--logging-steps": "--log-every",
    "--mlm-probability": "--mask-probability", "--report-to": "--log-with",
    "--fp16": "--precision", "--bf16": "--precision", "--max-seq-length": "--max-length",
    "--torch-compile": "--compile",
}  # fmt: skip
CHOICES_WIDTH = 26  # columns; a longer list of choices is part of the help text, where it wraps between words


class Command(TyperCommand):
    """A command whose --help is listed last, and that knows its options by the names of other programs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line. For an unknown option, suggest ours of the same meaning."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            ours = OTHER_NAMES.get(getattr(error, "option_name", "").replace("_", "-"))
            if any(ours in parameter.opts for parameter in self.params):
                error.possibilities = [ours]  # type: ignore[attr-defined]
            raise

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help in its panel."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel, found.metavar = "Common", ""  # type: ignore[attr-defined, unused-ignore]
        return found


def register(name: str, options_class: type[CommonOptions]) -> None:
    """Add a command whose flags are the fields of an options class."""

    def body(ctx: typer.Context, **values: Any) -> None:
        typed = {key: value for key, value in values.items() if _is_typed(ctx, key)}
        with_exit_codes(lambda: execute(name, options_class, typed))

    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *(_parameter(item, kind) for item, kind in fields_of(options_class))]
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = {}
    summary, _, rest = (inspect.getdoc(options_class) or "").partition("\n")
    examples = "\n\n".join(["[bold]Examples[/bold]", *(f"  {_escape(line)}" for line in options_class.usage)])
    app.command(name, cls=Command, help=f"{summary}\n{rest}", short_help=summary, epilog=examples)(body)


def _is_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parameter(item: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    """Turn a field into a typer parameter. Its value is text, which parse() converts and checks."""
    spec = spec_of(item)
    panel = "Arguments" if spec.positional else spec.panel
    settings: dict[str, Any] = {"help": _escape(_help_text(spec, kind)), "rich_help_panel": panel}
    if spec.positional:
        words: Any = list[str] if get_origin(kind) is tuple else str
        if item.default is dataclasses.MISSING:
            return _keyword(item.name, Annotated[words, typer.Argument(metavar=spec.metavar, **settings)])
        return _keyword(item.name, Annotated[words | None, typer.Argument(metavar=spec.metavar, **settings)], None)
    names = [name for name in (spec.short, flag(item.name)) if name]
    if kind is bool:
        return _keyword(item.name, Annotated[bool, typer.Option(*names, metavar="", **settings)], item.default)
    repeated = get_origin(kind) is tuple and not is_list(item, kind)
    settings |= {"metavar": _type_name(item.name, spec, kind), "autocompletion": _completion(kind)}
    if item.default is dataclasses.MISSING:
        settings["help"] += " [red]\\[required][/red]"
    annotation: Any = list[str] | None if repeated else str | None
    return _keyword(item.name, Annotated[annotation, typer.Option(*names, **settings)], _default_text(item.default))


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _default_text(default: Any) -> str | None:
    if isinstance(default, tuple) and default:
        return ",".join(map(str, default))
    return str(default) if isinstance(default, (str, int, float)) else None


def _help_text(spec: Spec, kind: Any) -> str:
    """Return an option's help text, with its choices if they are too long for the column of types."""
    if get_origin(kind) is not Literal or len("|".join(get_args(kind))) <= CHOICES_WIDTH:
        return spec.help
    return f"{spec.help.removesuffix('.')}. One of {', '.join(get_args(kind))}."


def _type_name(name: str, spec: Spec, kind: Any) -> str:
    """Spell what an option takes: its choices, a metavar, or a type with its range."""
    if get_origin(kind) is Literal:
        choices = "|".join(get_args(kind))
        return choices if len(choices) <= CHOICES_WIDTH else flag(name)[2:].upper()
    limits = bounds(spec) if spec.max is not None and spec.max < 2**16 else bounds(Spec(help="", min=spec.min))
    return spec.metavar or TYPE_NAMES.get(kind, "TEXT") + limits


def _completion(kind: Any) -> Callable[[], list[str]] | None:
    return (lambda: list(get_args(kind))) if get_origin(kind) is Literal else None


def _escape(text: str) -> str:
    """Keep brackets in a text from being read as rich markup."""
    return text.replace("[", "\\[")


def execute(name: str, options_class: type[CommonOptions], typed: dict[str, Any]) -> int:
    """Build the options, run the command, print its record and check its gates; returns the exit code.

    Raises typer.BadParameter for wrong usage.
    """
    try:
        kinds = {item.name: (item, kind) for item, kind in fields_of(options_class)}
        given = {key: parse(*kinds[key], value) for key, value in typed.items()}
        table = read_recipe(given["recipe"], name) if "recipe" in given else {}
        if lacking := missing(options_class, given, table):
            raise OptionError(f"missing option '{lacking[0]}'")
        options = build(options_class, given, table)
    except OptionError as error:
        raise typer.BadParameter(shorten(printable(str(error)))) from None
    from distilkit.commands.call import run

    with contextlib.redirect_stdout(sys.stderr), saying_how_to_continue(options):  # what libraries print is not data
        done = run(name, options)
    if not progress.is_first_process():
        return 0
    with progress.level(quiet=options.quiet), writing("the record to standard output"):
        show(done, as_json=options.json)
        sys.stdout.flush()
    gates = getattr(options, "require", ())
    failures = [*unmet_gates(gates, done.metrics), *unmet_budget(getattr(options, "budget", ()), done.metrics)]
    with progress.level(quiet=options.quiet):
        for gate in gates:
            if not any(line.startswith(f"{gate}:") for line in failures):
                progress.say(f"gate met: {gate}")
    for line in failures:
        progress.complain("gate not met", line)
    return 3 if failures else 0


@contextlib.contextmanager
def saying_how_to_continue(options: CommonOptions) -> Iterator[None]:
    """Context manager: an interrupt says how to continue if train() wrote a run checkpoint that the command can use."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        kept = str(interrupt) and hasattr(options, "resume") and not getattr(options, "plan", False)
        hint = "to continue, run the same command with --resume"
        raise KeyboardInterrupt(hint if kept else "") from None


def with_exit_codes(work: Callable[[], int]) -> None:
    """Run `work` and exit with its documented exit code; a bug keeps its traceback."""
    with contextlib.suppress(ValueError):  # not the main thread
        for number in (signal.SIGINT, *stopping_signals()):  # outside of training, clean up and exit
            signal.signal(number, signal.default_int_handler)
    try:
        code = work()
    except DistilkitError as error:
        progress.complain("error", str(error))
        code = 1
    except KeyboardInterrupt as interrupt:
        progress.complain("interrupted", str(interrupt) or "the command stopped before its end")
        code = 130
    raise typer.Exit(code)


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"distilkit {__version__}")
        raise typer.Exit
    import logging
    import os

    if "RANK" in os.environ:  # with several processes, each would warn that it looks for unused parameters
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # hub_errors() reports errors of the hub in one line
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


for command, options_class in COMMANDS.items():
    register(command, options_class)


@app.command(cls=Command, epilog="[bold]Example[/bold]\n\n  distilkit recipes distilbert-2019")
def recipes(name: Annotated[str | None, typer.Argument(help="Recipe to print.", metavar="[NAME]")] = None) -> None:
    """List the shipped recipes, or print one."""

    def work() -> int:
        print(recipe_text(name).rstrip() if name else "\n".join(recipe_names()))
        return 0

    with_exit_codes(work)
