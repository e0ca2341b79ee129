"""Imports only go from higher layers of the package to lower ones; some calls are allowed in a single file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import distilkit

HOUSE = Path(distilkit.__file__).parent
FLOORS = [
    {
        *(
            "errors",
            "formatting",
            "machine",
            "wording",
            "class_scores",
            "hub",
            "next_command",
            "progress",
            "files",
            "claims",
            "record",
            "gates",
        ),
        *("screen", "signals", "special_tokens", "preflight", "options", "__init__"),
    },
    {"encoders", "data"},
    {"training", "tasks", "runtimes"},
    {"distillation", "evaluation", "benchmark", "reporting"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LIGHT = {"rich", "tomli"}  # what the ground floor may import besides the standard library
HEAVY = {"torch", "transformers", "datasets", "accelerate", "evaluate", "numpy", "rich"}
HELPERS = {f"commands.{name}": {f"commands.{name}_inputs"} for name in ("distill", "finetune")} | {
    "commands.bench": {"commands.bench_plan"}  # their second files
}
FILES = sorted(".".join(path.relative_to(HOUSE).with_suffix("").parts) for path in HOUSE.rglob("*.py"))
WINGS = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))


def source(file: str) -> Path:
    return HOUSE / (file.replace(".", "/") + ".py")


def tree(file: str) -> ast.Module:
    return ast.parse(source(file).read_text(encoding="utf-8"))


def room(file: str) -> str:
    return file.partition(".")[0]


def floor(file: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(file) in rooms)


def imports(file: str) -> Iterator[str]:
    """Yield the dotted names that a file imports, anywhere in it."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def neighbours(file: str) -> set[str]:
    """Return the files of the package that a file imports."""
    found = set()
    for name in imports(file):
        package, _, inside = name.partition(".")
        if package == "distilkit":
            found |= {other for other in FILES if f"{inside}.".startswith(f"{other}.")} or {"__init__"}
    return found - {file}


@pytest.mark.parametrize("file", FILES)
def test_imports_go_down(file: str) -> None:
    """A file imports its own subpackage and lower layers; files of the lowest layer also import each other."""
    for other in neighbours(file):
        inside = room(other) == room(file) or floor(other) == floor(file) == 0
        assert floor(other) < floor(file) or inside, f"{file} imports {other}"


def test_no_circle() -> None:
    """No file imports itself through others."""
    below: dict[str, set[str]] = {}

    def reach(file: str, path: tuple[str, ...] = ()) -> set[str]:
        assert file not in path, " imports ".join((*path[path.index(file) :], file))
        if file not in below:
            below[file] = {file}.union(*(reach(other, (*path, file)) for other in neighbours(file)))
        return below[file]

    assert all(reach(file) for file in FILES)


@pytest.mark.parametrize("file", [file for file in FILES if "." in file])
def test_a_file_of_a_wing_has_300_lines_at_most(file: str) -> None:
    """A longer file of a subpackage has more than one subject."""
    assert len(source(file).read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_opens_with_a_docstring_alone(wing: str) -> None:
    """Its __init__.py says what the subpackage is for and has no code."""
    (only,) = tree(f"{wing}.__init__").body
    assert isinstance(only, ast.Expr)
    assert ast.get_docstring(tree(f"{wing}.__init__"))


@pytest.mark.parametrize("file", [file for file in FILES if floor(file) == 0])
def test_the_ground_floor_is_light(file: str) -> None:
    """It imports the standard library, rich in screen and progress, and tomli for old Pythons."""
    import sys

    outside = (
        {name.partition(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"distilkit", "tomllib"}
    )
    assert outside <= (LIGHT if file in ("screen", "progress") else {"tomli"})


@pytest.mark.parametrize("file", [file for file in FILES if room(file) == "commands"])
def test_commands_do_not_call_each_other(file: str) -> None:
    """Only the demo runs the others."""
    others = {other for other in neighbours(file) if room(other) == "commands"}
    assert file == "commands.demo" or others <= HELPERS.get(file, set())


def users(names: set[str]) -> set[str]:
    """Return the files in which an attribute or a function of one of these names is used."""
    return {
        file
        for file in FILES
        for node in ast.walk(tree(file))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names)
    }


def test_typer_lives_in_the_command_line_alone() -> None:
    """No other file imports typer or click."""
    assert {file for file in FILES if {"typer", "click"} & {name.partition(".")[0] for name in imports(file)}} == {
        "cli"
    }


def test_models_and_tokenizers_are_opened_and_saved_in_one_place() -> None:
    """Only encoders/checkpoint.py, contents.py and runtimes/exported.py call from_pretrained and save_pretrained."""
    places = {"encoders.checkpoint", "encoders.contents", "runtimes.exported"}
    assert users({"from_pretrained", "save_pretrained"}) == places


def test_nothing_else_prints() -> None:
    """Functions return; print() is called in __main__, cli.py and screen.py, and in progress.py on stderr."""
    assert users({"print"}) <= {"__main__", "cli", "screen", "progress"}


def test_cli_imports_nothing_heavy_at_its_top() -> None:
    """What a command needs is imported in its body."""
    top = [node for node in tree("cli").body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert top
    for node in top:
        names = {getattr(node, "module", "") or "", *(alias.name for alias in node.names)}
        assert not {name.partition(".")[0] for name in names} & HEAVY
        assert not any(name.startswith("distilkit.commands") for name in names)


@pytest.mark.parametrize("file", FILES)
def test_imports_work_on_windows(file: str) -> None:
    """No file imports at its top what only Unix has."""
    top = [node for node in tree(file).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    found = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    assert not found & {"fcntl", "resource", "termios", "pwd", "grp", "pty"}
