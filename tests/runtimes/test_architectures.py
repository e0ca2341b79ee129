"""Export a tiny checkpoint of every architecture that docs/reference/exports.md lists."""

from pathlib import Path

import pytest
from exports import NAMES, installed, try_export

PAGE = (Path(__file__).parents[2] / "docs/reference/exports.md").read_text(encoding="utf-8")
FORMATS = next(line for line in PAGE.splitlines() if line.startswith("| model type")).replace(" ", "").split("|")[2:-1]
INSTALLED = [form for form in FORMATS if installed(form)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_architecture_is_exported_as_the_page_says(name: str, tmp_path: Path) -> None:
    """Outputs equal the checkpoint's to 1e-4, or the export is refused as on the page, in each installed format."""
    row = try_export(name, tmp_path, INSTALLED)
    (listed,) = (line.split("|")[2:-1] for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    refused = {form: cell.strip().startswith("refused") for form, cell in zip(FORMATS, listed, strict=True)}
    assert {form: isinstance(row.results[form], str) for form in INSTALLED} == {
        form: refused[form] for form in INSTALLED
    }
    assert all(found < 1e-4 for found in row.results.values() if isinstance(found, float))
