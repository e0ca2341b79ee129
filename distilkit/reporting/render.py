"""Fill a report into the HTML and Markdown templates."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distilkit import __version__
from distilkit.formatting import format_duration
from distilkit.reporting.models import Results
from distilkit.reporting.next_steps import NextStep
from distilkit.reporting.plots import COLORS, Plot, inline_svg
from distilkit.reporting.provenance import Step, machines, training_seconds
from distilkit.reporting.summary import description, main_model, tiles, title
from distilkit.reporting.tables import Table

GLYPHS = "●■▲◆▼✚✖"  # the plots' markers, in the same order


class Content(NamedTuple):
    """What a report shows: the models, and what was computed from their records."""

    results: Results
    tables: Sequence[Table]
    plots: Sequence[Plot]
    steps: Sequence[Step]
    next_steps: Sequence[NextStep]


def html(content: Content) -> str:
    """Return the report as one self-contained HTML page, style and plots included."""
    places = machines(content.steps)
    took = training_seconds(step.record for step in content.steps)
    return HTML.get_template("report.html.jinja").render(
        common_values(content),
        marks={model.name: mark(number) for number, model in enumerate(content.results.models)},
        training_time=format_duration(took) if took else "",
        machine_facts=list(dict.fromkeys(name for facts, _ in places for name in facts)),
        version=__version__,
    )


def markdown(content: Content) -> str:
    """Return the report as Markdown; the plots are files beside it."""
    return fill("report.md.jinja", **common_values(content))


def common_values(content: Content) -> dict[str, Any]:
    """Return the values that both templates use."""
    results, models = content.results, content.results.models
    main = main_model(results)
    model = main or (models[0] if len(models) == 1 else None)
    return {
        **content._asdict(),
        "main": main,
        "title": title(results),
        "lede": description(results, model) if model else ", ".join(model.name for model in models),
        "tiles": tiles(results, main) if main else [],
        "machines": machines(content.steps),
    }


def mark(number: int) -> tuple[str, str]:
    """Return a model's colour class and glyph, which match its marker in the plots."""
    return f"m{number % len(COLORS)}", GLYPHS[number % len(GLYPHS)]


def fill(template: str, **values: Any) -> str:
    """Fill in a Markdown template; every value it prints is escaped, unless the template marks it as safe."""
    return MARKDOWN.get_template(template).render(values).rstrip() + "\n"


def escape(value: Any) -> Markup:
    """Return text so that Markdown shows it literally, on one line, also inside a table."""
    if isinstance(value, Markup):
        return value
    plain = one_line(str(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain))  # noqa: S704 - escaped in this line and the one above


def fence(text: str, language: str = "sh") -> Markup:
    """Return text as a block of shell code, fenced by more backticks than it contains in a row."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markup(f"{ticks}{language}\n{text.rstrip()}\n{ticks}")  # noqa: S704 - Markdown shows a fenced block literally


def one_line(text: str) -> str:
    """Return text on one line."""
    return " ".join(text.split())


def environment(**options: Any) -> Environment:
    """Return a jinja environment over templates/ that escapes, and refuses unknown names."""
    return Environment(
        loader=PackageLoader("distilkit.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


HTML = environment()
HTML.filters["inline_svg"] = inline_svg
# finalize comes before jinja's own escaping, which leaves its result, a Markup, as it is.
MARKDOWN = environment(finalize=escape)
MARKDOWN.filters |= {"fence": fence, "one_line": one_line}
