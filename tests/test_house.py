"""The imports obey the floors of the house, and what has one place is in that place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import distilkit

HOUSE = Path(distilkit.__file__).parent
FLOORS = [
    {"errors", "__init__"},
    {"config", "options", "record", "progress", "tables", "allocator", "divergence"},
    {
        *("corpus", "packing", "rows", "stream", "reading", "pairing", "teacher_cache", "manifest"),
        *(
            "checkpoint",
            "losses",
            "states",
            "objectives",
            "alignment",
            "task_loss",
            "training",
            "processes",
            "journal",
            "sharding",
            "snapshot",
            "examiner",
        ),
        *("plan", "memory", "tracker", "curve"),
        *("stack", "layers", "proof", "selection", "vocabulary", "distilbert"),
        *("tasks", "labels", "task_data", "encoding", "squad", "metrics", "jobs", "best"),
        *("measurements", "results", "comparison", "headline", "steps", "gaps", "plots", "render", "card"),
        *("predictions", "inference", "resampling", "retention"),
        *("agreement", "answers", "pairs", "slices", "calibration"),
    },
    {"student", "distillation", "finetuning", "evaluation", "benchmark", "export", "report"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
LIGHT = FLOORS[0] | FLOORS[1]
NEIGHBOURS = {("finetuning", "evaluation")}
OPENERS = {"from_pretrained", "save_pretrained"}
MODULES = sorted(path.stem for path in HOUSE.glob("*.py"))


def floor(module: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if module in names)


def tree(module: str) -> ast.Module:
    return ast.parse((HOUSE / f"{module}.py").read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield the dotted names that a module imports, anywhere in it."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    parts = (name.split(".") for name in imports(module))
    return {name[1] if len(name) > 1 and name[1] in MODULES else "__init__" for name in parts if name[0] == "distilkit"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    """A module imports from lower floors; on its own floor only where that is a helper's floor or said so here."""
    mine = floor(module)
    for room in rooms(module) - {module}:
        same_floor_is_fine = mine in (1, 2) or (module, room) in NEIGHBOURS
        assert floor(room) < mine or (floor(room) == mine and same_floor_is_fine), f"{module} imports {room}"


@pytest.mark.parametrize("module", sorted(LIGHT & set(MODULES)))
def test_lower_floors_are_light(module: str) -> None:
    """errors, config, record and progress import the standard library, tomli for old Pythons, and rich."""
    import sys

    outside = {name.split(".")[0] for name in imports(module)} - set(sys.stdlib_module_names) - {"distilkit"}
    assert outside <= ({"rich"} if module == "progress" else {"tomli"})


def test_typer_lives_in_the_command_line_alone() -> None:
    """No other module imports typer or click."""
    users = {module for module in MODULES if {"typer", "click"} & {name.split(".")[0] for name in imports(module)}}
    assert users == {"cli"}


def test_models_and_tokenizers_are_opened_and_saved_in_one_place() -> None:
    """Only checkpoint.py calls from_pretrained and save_pretrained, on whatever class."""
    users = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and node.attr in OPENERS
    }
    assert users == {"checkpoint"}


def test_cli_imports_nothing_heavy_at_its_top() -> None:
    """What a command needs is imported in its body."""
    heavy = {name for names in FLOORS[2:5] for name in names}
    top = [node for node in tree("cli").body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert top
    for node in top:
        names = {alias.name for alias in node.names} | set((getattr(node, "module", "") or "").split("."))
        assert not names & (heavy | {"torch", "transformers", "datasets", "accelerate", "evaluate", "numpy", "rich"})


def test_nothing_else_prints() -> None:
    """Functions return; print() is called in cli.py, and in progress.py on stderr."""
    users = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert users <= {"cli", "progress"}
