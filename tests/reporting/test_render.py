"""The page and report.md: well-formed, complete, self-contained, and safe with any name."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from records import save, write_model

from distilkit.commands.report import report
from distilkit.options.bench import BenchOptions
from distilkit.options.init import InitOptions
from distilkit.options.report import ReportOptions
from distilkit.record import record
from distilkit.reporting import plots
from distilkit.reporting.plots import COLORS
from distilkit.reporting.render import GLYPHS, MARKDOWN, escape, fence

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Parses a page into elements and texts, and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def make(out: Path, *directories: Path) -> tuple[str, Page]:
    report(ReportOptions(directories=tuple(map(str, directories)), output=out))
    text = (out / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_is_well_formed_and_has_the_records_figures(chain: Path, tmp_path: Path) -> None:
    """Every element is closed; sizes, times, scores, intervals, commands and versions are shown."""
    _, page = make(tmp_path / "out", chain)
    texts = {text for _, text in page.texts}
    for figure in (
        "50%", "1.60×", "95.0%", "0.836", "0.814 to 0.852", "91.0% to 98.5%", "8.00", "+0.044", "+0.004 to +0.085",
    ):  # fmt: skip
        assert figure in texts, figure
    code = "".join(text for tag, text in page.texts if tag in ("code", "span"))
    assert "distilkit" in code
    assert "some/teacher" in code
    assert any("--temperature" in text for text in texts)


def test_the_page_is_self_contained(chain: Path, tmp_path: Path) -> None:
    """It loads no script, font or picture; all references are within the page."""
    text, page = make(tmp_path / "out", chain)
    assert not re.search(r"https?:|//[a-z]|\bsrc=|@import|@font-face", re.sub(r'\bxmlns(:\w+)?="[^"]*"', "", text))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    links = [a[name] for _, a in page.elements for name in ("href", "xlink:href") if name in a]
    assert links
    assert all(str(link).startswith("#") for link in links)


def test_ids_are_unique_and_references_lead_somewhere(chain: Path, tmp_path: Path) -> None:
    """Plots on one page do not share ids, and every id that is referred to exists."""
    text, page = make(tmp_path / "out", chain)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r"url\(#([^)]*)\)", text) + re.findall(r'href="#([^"]*)"', text)
    wanted += [a[key] for _, a in page.elements for key in ("aria-labelledby", "aria-describedby") if key in a]
    assert wanted
    assert set(wanted) <= set(ids)


def test_the_page_is_accessible(chain: Path, tmp_path: Path) -> None:
    """A screen reader finds the language, one h1, named sections, header scopes and a description of each plot."""
    _, page = make(tmp_path / "out", chain)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert all("aria-labelledby" in section for section in page.all("section"))
    assert {header.get("scope") for header in page.all("th")} == {"col", "row"}
    drawings = [frame for frame in page.all("div") if frame.get("role") == "img"]
    assert len(drawings) == len(page.all("figure")) == len(page.all("svg")) > 3
    descriptions = " ".join(str(frame["aria-label"]) for frame in drawings)
    assert "student-tuned 95.0% (91.0% to 98.5%) on MRPC" in descriptions
    assert "student 4.500 to 4.250 over 300 tokens" in descriptions


def luminance(color: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2, section on contrast)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_contrast_in_light_dark_and_print() -> None:
    """Text reaches WCAG's 4.5 to 1 and plotted lines its 3 to 1, and the light colours are those of the plots."""
    css = (Path(plots.__file__).parent / "templates/page.css").read_text()
    palettes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root {(.*?)}", css, re.DOTALL)
    ]
    assert len(palettes) == 3
    for palette in palettes:
        for name, least in {"ink": 4.5, "ink-2": 4.5, **{f"s{i}": 3.0 for i in range(len(COLORS))}}.items():
            for ground in ("paper", "raised") if name.startswith("ink") else ("paper",):
                low, high = sorted((luminance(palette[name]), luminance(palette[ground])))
                assert (high + 0.05) / (low + 0.05) >= least, (name, ground)
    assert [palettes[0][f"s{i}"] for i in range(len(COLORS))] == list(COLORS)
    assert re.findall(r"\.(m\d) { color: var\(--(s\d)\) }", css) == [(f"m{i}", f"s{i}") for i in range(len(COLORS))]
    assert len(GLYPHS) == len(plots.MARKERS)


def test_plots_use_the_page_s_colours(chain: Path, tmp_path: Path) -> None:
    """Each colour in an inline plot is a variable of the page, so that dark mode and print can change it."""
    text, _ = make(tmp_path / "out", chain)
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) > 3
    for drawing in drawings:
        colors = set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", drawing))
        assert {color for color in colors if not color.startswith("var(--")} <= {"none"}
        assert {"var(--ink-2)", "var(--line)"} < colors


@pytest.mark.parametrize(
    "name", ["a<b>&\"'|*_`[x](y)", "</style><script>alert(1)</script>".replace("/", "∕"), "日本 ü", "$a_{b$ \x1b"]
)
def test_any_name_is_shown_as_it_is(name: str, tmp_path: Path) -> None:
    """Markup in a name is text on the page and in report.md, in tables, plots, headline and commands."""
    made = InitOptions(teacher=f"hub/{name}", output=tmp_path / name)
    write_model(tmp_path / name, 1000, [record("init", made, {"student/parameters": 1e3, "teacher/parameters": 2e3})])
    metrics = {"0/cpu/fp32/b1/l8/latency_ms_p50": 3.0, "0/parameters": 1e3}
    save(tmp_path / name / "bench.json", record("bench", BenchOptions(models=(str(tmp_path / name),)), metrics))
    text, page = make(tmp_path / "out", tmp_path / name)
    assert "script" not in {tag for tag, _ in page.elements}
    assert ("h1", name.replace("\x1b", "�")) in page.texts
    assert "<b>" not in text
    row = next(
        line
        for line in (tmp_path / "out/report.md").read_text().splitlines()
        if line.startswith("| ") and "3.00" in line
    )
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert "<" not in row


def test_markdown_templates_escape_what_they_print() -> None:
    """A value is shown as text on one line; the output of a filter is not escaped again."""
    template = MARKDOWN.from_string("{{ text }} *this* {{ text | fence }}")
    assert template.render(text="a*b\n<c>|d") == "a\\*b &lt;c&gt;\\|d *this* ```sh\na*b\n<c>|d\n```"
    assert escape(escape("a*")) == escape("a*") == "a\\*"


def test_a_fence_is_longer_than_the_backticks_in_it() -> None:
    """Code with a fence of its own does not end the block."""
    assert fence("a ```` b").splitlines() == ["`````sh", "a ```` b", "`````"]


def test_a_template_with_an_unknown_name_is_an_error() -> None:
    """A misspelt name must not leave a silent gap in a report."""
    with pytest.raises(UndefinedError):
        MARKDOWN.from_string("{{ titel }}").render(title="a")
