"""The table of scores by class, with the class that each one is most often mistaken for."""

from distilkit.class_scores import ClassTable, class_tables
from distilkit.formatting import format_percent
from distilkit.reporting.models import Results
from distilkit.reporting.tables import Cell, Table, drop_empty_columns

MOST_CLASSES = 50  # more rows than that are for --json


def classes(results: Results) -> Table:
    """Return precision, recall and F1 of each model's classes or types of entity, one row each."""
    heads = [Cell(text) for text in ("Model", "Class", "Precision", "Recall", "F1", "Rows", "Mistaken for")]
    rows = []
    for model in results.models:
        for table in class_tables(model.metrics).values():
            if len(table.scores) <= MOST_CLASSES:
                rows += [[Cell(model.name), *cells(table, label)] for label in table.scores]
    caption = (
        "On the validation rows. The last column is the class that is most often predicted instead, and how often."
    )
    return drop_empty_columns(Table("Classes", caption, heads, rows))


def cells(table: ClassTable, label: str) -> list[Cell]:
    """Return the cells of a class."""
    scores = table.scores[label]
    shares = [format_percent(scores[name]) if name in scores else "" for name in ("precision", "recall", "f1")]
    return [Cell(label), *map(Cell, shares), Cell(f"{scores.get('count', 0):,.0f}"), mistake(table, label)]


def mistake(table: ClassTable, label: str) -> Cell:
    """Return the class that is most often predicted for another one, with the number of its rows."""
    wrong = {other: count for other, count in table.confusion.get(label, {}).items() if other != label}
    if not wrong:
        return Cell("")
    most = max(wrong, key=lambda other: wrong[other])
    return Cell(most, f"{wrong[most]:,.0f}")
