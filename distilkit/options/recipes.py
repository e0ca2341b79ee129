"""The options class of each command, and the recipes that fill options in."""

import os
import sys
from pathlib import Path
from typing import Any

from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.export import ExportOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.options.predict import PredictOptions
from distilkit.options.report import DemoOptions, ReportOptions
from distilkit.options.training import CommonOptions

RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """List the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_text(name: str) -> str:
    """Return the text of a shipped recipe or of a recipe file."""
    path = Path(name)
    if name in recipe_names():
        path = RECIPES / f"{name}.toml"
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file() raises for a name that is too long
        raise DistilkitError(f"no recipe '{name}': give a file or one of {', '.join(recipe_names())}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DistilkitError(f"recipe '{name}' is not UTF-8 text: give a TOML file") from None
    except OSError as error:
        raise DistilkitError(f"recipe '{name}' cannot be read ({error.strerror}): give a TOML file") from None


def read_recipe(name: str, command: str) -> dict[str, Any]:
    """Return a recipe's table for a command, {} where it has none.

    Raises DistilkitError if the recipe is missing, is not TOML, or has a table that is not a command.
    """
    if sys.version_info >= (3, 11):  # only a recipe needs it, and every --help would pay for it
        import tomllib
    else:
        import tomli as tomllib
    try:
        tables = tomllib.loads(recipe_text(name))
    except ValueError as error:  # not TOML, or a number of thousands of digits
        raise DistilkitError(f"recipe '{name}' is not TOML: {error}") from None
    except RecursionError:
        raise DistilkitError(f"recipe '{name}' is nested too deeply: give one table for each command") from None
    for table, content in tables.items():
        if table not in COMMANDS or not isinstance(content, dict):
            raise DistilkitError(
                f"recipe '{name}' has an entry '{table}' that is not a command: give only tables named "
                f"{', '.join(COMMANDS)}"
            )
    return dict(tables.get(command, {}))


COMMANDS: dict[str, type[CommonOptions]] = {
    "init": InitOptions,
    "distill": DistillOptions,
    "finetune": FinetuneOptions,
    "eval": EvalOptions,
    "predict": PredictOptions,
    "bench": BenchOptions,
    "export": ExportOptions,
    "report": ReportOptions,
    "demo": DemoOptions,
}
