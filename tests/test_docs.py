"""The pages say what the program does."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from distilkit import __version__
from distilkit.options.recipes import COMMANDS, recipe_names
from distilkit.options.spec import fields_of, flag, spec_of

ROOT = Path(__file__).parent.parent
CLI = ROOT / "docs/cli.md"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The generator, as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_is_current(generate: ModuleType) -> None:
    """docs/cli.md is what `make docs` would write."""
    assert CLI.read_text(encoding="utf-8") == generate.page()


def test_check_tells_a_stale_page_and_writing_mends_it(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--check fails on an absent and on an old page, writes nothing, and names the remedy."""
    page = tmp_path / "cli.md"
    monkeypatch.setattr(generate, "PAGE", page)
    assert generate.main(["--check"]) == 1
    assert not page.exists()
    assert "make docs" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    page.write_text(page.read_text(encoding="utf-8") + "more", encoding="utf-8")
    assert generate.main(["--check"]) == 1


def section(command: str) -> str:
    """Return the part of the page about a command."""
    found = re.search(
        rf"^## distilkit {command}\b.*?(?=^## |\Z)", CLI.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found, f"no section about {command}"
    return found.group()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_described_with_its_default(command: str) -> None:
    """A command's section has its arguments, and a row for each option with its help and its default."""
    rows = {
        name: line
        for line in section(command).splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    }
    assert {"--json", "--recipe", "--help"} <= set(rows)
    for item, _ in fields_of(COMMANDS[command]):
        spec = spec_of(item)
        if spec.positional:
            assert f"`{spec.metavar}`: {spec.help}" in section(command)
            continue
        row = rows[flag(item.name)]
        assert spec.help.replace("|", "\\|") in row
        if isinstance(item.default, float):
            assert f"| `{item.default}` |" in row


def test_recipes_are_named() -> None:
    """The page lists the shipped recipes."""
    assert all(f"`{name}`" in section("recipes") for name in recipe_names())


def test_the_changelog_begins_with_this_version() -> None:
    """The newest entry is the version in the code, and it has a line about every command."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)[0]
    assert newest == __version__
    assert all(f"`distilkit {command}`" in text for command in COMMANDS)


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """Every page is in the navigation, every link and anchor leads somewhere, and no other host is needed."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]  # --quiet forgives
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert tmp_path / "site/how-to/distil/index.html" in pages
    loaded = {
        path: re.findall(r"<(?:script|img|link rel=.stylesheet.)[^>]+https?://[^>]+", text)
        for path, text in pages.items()
    }
    assert {path: found for path, found in loaded.items() if found} == {}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_beside_the_site_lead_somewhere(name: str) -> None:
    """A page outside of docs/ links to files that exist."""
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (ROOT / target).is_file()] == []
