"""The wheel has what it needs and needs what it says."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from distilkit import __version__
from distilkit.options.recipes import recipe_names
from distilkit.runtimes.formats import PACKAGES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {"scikit-learn": "sklearn"}
PROGRAM = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
for name in {absent}:
    sys.modules[name] = None
import distilkit
assert distilkit.__file__.startswith(sys.argv[1]), distilkit.__file__
for module in pkgutil.walk_packages(distilkit.__path__, "distilkit."):
    if module.name != "distilkit.__main__":
        importlib.import_module(module.name)
from distilkit.reporting.render import HTML, MARKDOWN
HTML.get_template("report.html.jinja")
MARKDOWN.get_template("model_card.md.jinja")
from distilkit.cli import app
app(["--version"], prog_name="distilkit")
"""


def names(requirements: list[str]) -> set[str]:
    """Return the names under which requirements are imported."""
    found = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]
    return {IMPORTED_AS.get(name, name) for name in found}


def imported() -> set[str]:
    """Return the third-party packages that the package imports, anywhere in it."""
    found = set()
    for path in (ROOT / "distilkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"distilkit", "tomllib"}


def test_every_import_is_a_declared_dependency() -> None:
    """What is imported is named in pyproject.toml, and nothing is named that isn't imported.

    But for DeepSpeed, which is only asked where a run is one of its own, and for the extras of the export formats, some
    of whose packages transformers imports.
    """
    declared, runtimes = names(PROJECT["dependencies"]), {"onnxruntime", "openvino", "executorch"}
    assert imported() - {"deepspeed"} - runtimes == declared
    assert runtimes <= {name for form in PACKAGES for name in names(PROJECT["optional-dependencies"][form])}


def test_constraints_pin_every_dependency_to_one_release() -> None:
    """constraints.txt has name==version lines alone, among them everything that is asked for."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([\w.-]+)==[\d.]+(?: ; python_version [<>]=? '3\.11')?", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    pinned = {pin[1].lower() for pin in pins if pin}
    extras = PROJECT["optional-dependencies"]
    asked = {
        re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]
        for requirement in (*PROJECT["dependencies"], *extras["dev"])
    }
    assert asked - pinned == {"distilkit"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel; the build backend comes from the environment, so that nothing is fetched."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Modules, py.typed, recipes, templates and the licence are in it; tests and caches are not."""
    found = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "distilkit").rglob("*.py*") if path.suffix != ".pyc"}
    recipes = {f"distilkit/options/recipes/{name}.toml" for name in recipe_names()}
    templates = {
        f"distilkit/reporting/templates/{path.name}" for path in (ROOT / "distilkit/reporting/templates").iterdir()
    }
    info = f"distilkit-{__version__}.dist-info"
    own = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert templates >= {"distilkit/reporting/templates/report.html.jinja", "distilkit/reporting/templates/page.css"}
    assert found == modules | recipes | templates | own | {"distilkit/py.typed"}


@pytest.mark.slow
def test_the_wheel_works_without_the_extras(wheel: Path, tmp_path: Path) -> None:
    """Installed elsewhere, without the extras' packages, all modules import; templates and version are found."""
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(tmp_path), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    absent = ["wandb", "onnx", "onnxruntime", "openvino", "executorch", "pytest", "ruff", "mypy", "build", "hatchling"]
    command = [sys.executable, "-c", PROGRAM.format(absent=absent), str(tmp_path)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == f"distilkit {__version__}\n"
    assert (tmp_path / "bin/distilkit").is_file()
