"""`report`: a page, plots, tables and model cards from the records of the other commands."""

from distilkit.claims import claim
from distilkit.files import write_text
from distilkit.next_command import relative
from distilkit.options.report import ReportOptions
from distilkit.progress import say
from distilkit.record import Record, is_output_of, record, write_biography
from distilkit.reporting.class_table import classes
from distilkit.reporting.model_card import cards
from distilkit.reporting.models import read
from distilkit.reporting.next_steps import next_steps
from distilkit.reporting.plots import draw, save
from distilkit.reporting.provenance import base_of, steps
from distilkit.reporting.render import Content, html, markdown
from distilkit.reporting.tables import overview, scores, speeds


def report(options: ReportOptions) -> Record:
    """Write report.html, report.md and the plots, over those of an earlier report; --card adds a README.md to models.

    The record has the metrics of all models, each with the model's position in front.
    Raises DistilkitError if a directory has no records, or if --card would replace a README.md of someone else.
    """
    results = read(options.directories)
    done_steps = steps(results)
    readmes = cards(results, done_steps, force=options.force) if options.card else {}
    metrics = {f"{i}/{name}": value for i, model in enumerate(results.models) for name, value in model.metrics.items()}
    with claim(options.output, replace=is_output_of(options.output, "report")) as out:
        plots = draw(results)
        for plot in plots:
            save(plot, out)
        tables = [overview(results), scores(results), classes(results), speeds(results)]
        base = base_of(step.record for step in done_steps)
        content = Content(results, tables, plots, done_steps, next_steps(results, base))
        write_text(out / "report.html", html(content))
        write_text(out / "report.md", markdown(content))
        names = {f"model/{i}": model.name for i, model in enumerate(results.models)}
        done = record("report", options, metrics, **names, rows=results.task_name("custom"))
        write_biography(out, [done])
    for path, text in readmes.items():
        write_text(path, text)
        say(f"written: {relative(str(path))}")
    return done
