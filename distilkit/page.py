"""The report as one HTML page that needs nothing beside it: its style and its plots are in it."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from xml.etree import ElementTree as ET

from distilkit import __version__
from distilkit.comparison import Cell, Table
from distilkit.gaps import Gap
from distilkit.headline import Tile, sentence, subject, tiles, title
from distilkit.plots import COLORS, FAINT, INK, Plot, svg
from distilkit.results import Results
from distilkit.steps import Step, duration, machines, training_seconds

GLYPHS = "●■▲◆▼✚✖"  # as the plots' markers
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def h(tag: str, *content: ET.Element | str | None, **attributes: str) -> ET.Element:
    """Make an HTML element; text is escaped when it is written, `class_` and `aria_label` lose their underscores."""
    element = ET.Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    last: ET.Element | None = None
    for piece in content:
        if isinstance(piece, str) and last is None:
            element.text = (element.text or "") + piece
        elif isinstance(piece, str) and last is not None:
            last.tail = (last.tail or "") + piece
        elif piece is not None and not isinstance(piece, str):
            element.append(piece)
            last = piece
    return element


def page(
    results: Results, tables: Sequence[Table], plots: Sequence[Plot], steps: Sequence[Step], gaps: Sequence[Gap]
) -> str:
    """Return the whole page."""
    sections = [
        *(table_section(results, table) for table in tables[:1]),
        section("Plots", h("div", *map(figure, plots), class_="plots")) if plots else None,
        *(table_section(results, table) for table in tables[1:] if table.rows),
        section("What is missing", h("ul", *map(gap_item, gaps), class_="gaps")) if gaps else None,
        *how(steps),
    ]
    style = (files("distilkit") / "page.css").read_text(encoding="utf-8")
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", f"{title(results)}: distilkit report"),
        h("style", style + series_style()),
    )
    body = h("body", header(results), h("main", *sections), h("footer", f"Made by distilkit {__version__} report."))
    return "<!doctype html>\n" + ET.tostring(h("html", head, body, lang="en"), encoding="unicode", method="html") + "\n"


def series_style() -> str:
    """Return the rules that give the models' colours of the plots to their marks in the tables."""
    return "".join(f".m{i} {{ color: var(--s{i}) }}\n" for i in range(len(COLORS)))


def section(name: str, *content: ET.Element | str | None) -> ET.Element:
    """Make a section that its heading names."""
    key = name.lower().replace(" ", "-")
    return h("section", h("h2", name, id=key), *content, aria_labelledby=key)


def header(results: Results) -> ET.Element:
    """Make the headline: what was made from what, and the figures about it."""
    main = subject(results)
    model = main or (results.models[0] if len(results.models) == 1 else None)
    return h(
        "header",
        h("p", "distilkit report", class_="eyebrow"),
        h("h1", title(results)),
        h("p", sentence(results, model) if model else ", ".join(model.name for model in results.models), class_="lede"),
        h("dl", *map(tile, tiles(results, main)), class_="tiles") if main and tiles(results, main) else None,
    )


def tile(shown: Tile) -> ET.Element:
    """Make one figure of the headline."""
    return h(
        "div",
        h("dt", shown.label),
        h("dd", h("span", shown.figure, class_="figure"), h("span", shown.detail, class_="detail")),
    )


def table_section(results: Results, table: Table) -> ET.Element:
    """Make the section of a table, which scrolls by itself where it is wider than the page."""
    key = table.title.lower()
    numbers = {model.name: number for number, model in enumerate(results.models)}
    head = h("tr", *(h("th", *told(cell), scope="col") for cell in table.heads))
    rows = [
        h(
            "tr",
            h("th", h("div", mark(numbers[row[0].text]), *told(row[0]), class_="name"), scope="row"),
            *(h("td", *told(cell)) for cell in row[1:]),
        )
        for row in table.rows
    ]
    laid = h("table", h("thead", head), h("tbody", *rows), class_=key, aria_describedby=f"about-{key}")
    frame = h("div", laid, class_="scroll", role="region", tabindex="0", aria_labelledby=key)
    return section(table.title, frame, h("p", table.caption, id=f"about-{key}", class_="caption"))


def told(cell: Cell) -> list[ET.Element | str]:
    """Lay out a cell: its text, and its note below."""
    return [cell.text or "–", *([h("span", cell.note, class_="note")] if cell.note else [])]


def mark(number: int) -> ET.Element:
    """Make the mark that a model has in the plots."""
    return h("span", GLYPHS[number % len(GLYPHS)], class_=f"mark m{number % len(COLORS)}", aria_hidden="true")


def figure(plot: Plot) -> ET.Element:
    """Make a plot, drawn in the page's own colours, with its description for those who don't see it."""
    drawn = themed(plot)
    drawn.attrib |= {"role": "img", "aria-label": plot.description}
    return h("figure", h("figcaption", plot.title), drawn)


def themed(plot: Plot) -> ET.Element:
    """Return a plot as inline SVG: the page's colours and font, ids of its own, nothing that is only for a file."""
    text = svg(plot)
    for color, name in ((INK, "ink-2"), (FAINT, "line"), *((color, f"s{i}") for i, color in enumerate(COLORS))):
        text = text.replace(color, f"var(--{name})")
    root = ET.fromstring(text.partition("?>")[2])  # noqa: S314 - drawn by matplotlib a line above
    for parent in root.iter():
        for child in [child for child in parent if child.tag in (f"{SVG}style", f"{SVG}metadata")]:
            parent.remove(child)
    named = {element.get("id"): f"{plot.name}-{element.get('id')}" for element in root.iter() if element.get("id")}
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        if target := element.attrib.pop(LINK, ""):
            element.set("href", f"#{named[target[1:]]}")
        if key := element.get("id"):
            element.set("id", named[key])
        if clip := element.get("clip-path"):
            element.set("clip-path", f"url(#{named[clip[5:-1]]})")
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    return root


def gap_item(gap: Gap) -> ET.Element:
    """Say what is missing, with the command that finds it out."""
    return h("li", h("p", gap.text), command(gap.command) if gap.command else None)


def command(line: str) -> ET.Element:
    """Show a command, broken between its words only, however narrow the page."""
    words = [piece for word in line.split(" ") for piece in (" ", h("span", word))][1:]
    return h("pre", h("code", *words))


def how(steps: Sequence[Step]) -> Iterable[ET.Element]:
    """Say how the models were made: the commands in order, the time they took, where they ran."""
    if not steps:
        return
    items = [
        h(
            "li",
            h("h3", step.title),
            command(step.command),
            h("p", step.outcome, class_="outcome") if step.outcome else None,
        )
        for step in steps
    ]
    took = training_seconds(step.record for step in steps)
    training = f" Training took {duration(took)}." if took else ""
    said = f"The commands, in an order in which they can be run again.{training}"
    yield section("How it was made", h("p", said), h("ol", *items, class_="steps"))
    places = machines(steps)
    heads = h("tr", h("td"), *(h("th", ran(numbers, len(steps)), scope="col") for _, numbers in places))
    names = dict.fromkeys(name for where, _ in places for name in where)
    rows = [
        h("tr", h("th", name, scope="row"), *(h("td", where.get(name, "–")) for where, _ in places)) for name in names
    ]
    table = h("table", h("thead", heads), h("tbody", *rows), class_="machine")
    label = "Machine and versions"
    yield section(label, h("div", table, class_="scroll", role="region", tabindex="0", aria_label=label))


def ran(numbers: Sequence[int], total: int) -> str:
    """Name the steps that ran in one place."""
    if len(numbers) == total:
        return "all steps"
    return f"step{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
