"""The command line: config -> options, record -> output, error -> exit code. The only file that knows typer.

Each command's heavy imports are in its body, so that --help costs nothing.
"""

import contextlib
import dataclasses
import inspect
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import typer

from distilkit import __version__
from distilkit.errors import DistilkitError
from distilkit.gates import parse_gate, unmet_gates
from distilkit.options import declare
from distilkit.options import recipes as configs
from distilkit.options.bench import BenchOptions
from distilkit.options.declare import build, fields_of, flag, shown_default
from distilkit.options.distill import DistillOptions
from distilkit.options.init import InitOptions
from distilkit.options.report import DemoOptions, ReportOptions
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.options.training import CommonOptions
from distilkit.progress import is_first_process
from distilkit.record import Record
from distilkit.screen import show

app = typer.Typer(
    name="distilkit",
    help="Compress any BERT-family checkpoint the way DistilBERT was made, and measure what it keeps.",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def command(config_class: type[CommonOptions]) -> Callable[[Callable[[Any], Record]], Callable[..., None]]:
    """Register a function from config to Record as the command that its config class describes."""

    def register(run: Callable[[Any], Record]) -> Callable[..., None]:
        name = run.__name__.rstrip("_")

        def body(**values: Any) -> None:
            as_json, recipe = values.pop("json"), values.pop("recipe")
            with_exit_codes(lambda: execute(name, config_class, run, values, as_json=as_json, recipe=recipe))

        body.__signature__ = signature(config_class)  # type: ignore[attr-defined]
        body.__annotations__ = {}
        body.__doc__ = config_class.__doc__
        return app.command(name)(body)

    return register


def signature(config_class: type) -> inspect.Signature:
    """Make the signature that typer reads from a config class's fields, with --json and --recipe."""
    parameters = [_parameter(item, kind) for item, kind in fields_of(config_class)]
    common = {
        "json": (bool, typer.Option("--json", help="Print exactly one JSON document, the record, on stdout.")),
        "recipe": (
            str | None,
            typer.Option("--recipe", help="Shipped recipe or TOML file to take options from.", metavar="NAME|FILE"),
        ),
    }
    for name, (annotation, info) in common.items():
        default = False if annotation is bool else None
        parameters.append(_keyword(name, Annotated[annotation, info], default))
    return inspect.Signature(parameters)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _parameter(item: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    """Turn a field into a typer parameter whose own default is None, so that a recipe can be told from typing."""
    meta = item.metadata
    if meta.get("positional"):
        words: Any = list[str] if get_origin(kind) is tuple else str
        words = words if item.default is dataclasses.MISSING else words | None
        argument = Annotated[words, typer.Argument(help=meta["help"], metavar=meta["metavar"])]
        required = item.default is dataclasses.MISSING
        return _keyword(item.name, argument, inspect.Parameter.empty if required else None)
    settings: dict[str, Any] = {"help": meta["help"] + shown_default(item), "metavar": meta["metavar"]}
    if kind in (int, float):
        settings |= {"min": meta["min"], "max": meta["max"]}
    if get_origin(kind) is tuple:
        repeated = meta["metavar"] is None  # typed once an entry, not as one list
        kind, parser = (list[str], None) if repeated else (object, _list_of(get_args(kind)[0]))
        settings |= {"parser": parser}
    names = ([meta["short"]] if meta["short"] else []) + [flag(item.name)]
    return _keyword(item.name, Annotated[kind | None, typer.Option(*names, **settings)], None)


def _list_of(kind: Any) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str | tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(text, tuple):
            return text
        try:
            return tuple(kind(part.strip()) for part in text.split(","))
        except ValueError:
            raise typer.BadParameter(f"'{text}' is not a list like 1,2,3") from None

    parse.__name__ = "list"
    return parse


def execute(
    name: str,
    config_class: type[CommonOptions],
    run: Callable[[Any], Record],
    typed: dict[str, Any],
    *,
    as_json: bool,
    recipe: str | None,
) -> int:
    """Build the config, run the command, print its record and check its gates; returns the exit code."""
    typed = {key: tuple(value) if isinstance(value, list) else value for key, value in typed.items()}
    typed = {key: value for key, value in typed.items() if value not in (None, ())}
    table = configs.read_recipe(recipe, name) if recipe else {}
    missing = declare.missing(config_class, typed, table)
    if missing:
        raise typer.BadParameter(f"missing option '{missing[0]}'")
    config = build(config_class, typed, table)
    requirements: tuple[str, ...] = getattr(config, "require", ())
    for gate in requirements:  # a gate that can't be read should not cost an evaluation
        parse_gate(gate)
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no data
        done = run(config)
    if not is_first_process():
        return 0
    show(done, as_json=as_json)
    failures = unmet_gates(requirements, done.metrics)
    for line in failures:
        print(f"distilkit: gate not met: {line}", file=sys.stderr)
    return 3 if failures else 0


def with_exit_codes(work: Callable[[], int]) -> None:
    """Run and turn what happens into the contract's exit codes; a bug keeps its traceback."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # where no training listens: tidy up and say so
    try:
        code = work()
    except DistilkitError as error:
        print(f"distilkit: error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(
            "distilkit: interrupted: a training run with a checkpoint goes on with the same command and --resume",
            file=sys.stderr,
        )
        code = 130
    raise typer.Exit(code)


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Compress any BERT-family checkpoint the way DistilBERT was made, and measure what it keeps."""
    if version:
        print(f"distilkit {__version__}")
        raise typer.Exit
    import logging
    import os

    if "RANK" in os.environ:  # several processes: torch would warn, in each, that it looks for unused parameters
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # what goes wrong on the way to the hub ends up in our own one line
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


@command(InitOptions)
def init(config: InitOptions) -> Record:
    from distilkit.commands import init as student

    return student.init(config)


@command(DistillOptions)
def distill(config: DistillOptions) -> Record:
    from distilkit.commands import distill as distillation

    return distillation.distill(config)


@command(FinetuneOptions)
def finetune(config: FinetuneOptions) -> Record:
    from distilkit.commands import finetune as finetuning

    return finetuning.finetune(config)


@command(EvalOptions)
def eval_(config: EvalOptions) -> Record:
    from distilkit.commands.evaluate import evaluate

    return evaluate(config)


@command(BenchOptions)
def bench(config: BenchOptions) -> Record:
    from distilkit.commands import bench as benchmark

    return benchmark.bench(config)


@command(ReportOptions)
def report(config: ReportOptions) -> Record:
    from distilkit.commands import report as reports

    return reports.report(config)


@command(DemoOptions)
def demo(config: DemoOptions) -> Record:
    from distilkit.commands import demo as demos

    return demos.demo(config, say=lambda line: print(line, file=sys.stderr, flush=True))


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Recipe to print.", metavar="NAME")] = None) -> None:
    """List the shipped recipes, or print one."""

    def work() -> int:
        print(configs.recipe_text(name).rstrip() if name else "\n".join(configs.recipe_names()))
        return 0

    with_exit_codes(work)
