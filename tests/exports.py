"""What export makes of a tiny checkpoint of each architecture: the rows of docs/reference/exports.md."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from architectures import plain, write_teacher

from distilkit.errors import DistilkitError
from distilkit.runtimes.exported import save_exported
from distilkit.runtimes.exporting import export_model, open_whole
from distilkit.runtimes.formats import require_packages
from distilkit.runtimes.verify import TOLERANCE, largest_difference

NAMES = (
    *("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra"),
    *("modernbert", "mpnet", "roberta", "xlm-roberta"),
)
FORMATS = ("onnx", "openvino", "executorch")
LAYERS = 2


def installed(form: str) -> bool:
    """Return whether the packages of a format are installed."""
    try:
        require_packages(form)
    except DistilkitError:
        return False
    return True


class Row(NamedTuple):
    """The largest output difference of an architecture in each format, or why it was refused."""

    model_type: str
    results: dict[str, float | str]

    def markdown(self) -> str:
        """Return the row of the table."""
        cells = [f"{found:.0e}" if isinstance(found, float) else f"refused: {found}" for found in self.results.values()]
        return f"| {' | '.join([self.model_type, *cells])} |"


def try_export(model_type: str, place: Path, forms: Iterable[str] = FORMATS) -> Row:
    """Write a checkpoint with a masked-LM head, export it to the formats and compare both in this process."""
    write_teacher(model_type, place / "teacher", LAYERS)
    results: dict[str, float | str] = {}
    for form in forms:
        try:
            model, tokenizer = open_whole(str(place / "teacher"))
            save_exported(export_model(model, form), tokenizer, place / form)
            difference, scale = largest_difference(str(place / form), str(place / "teacher"), 0)
            within = difference <= TOLERANCE * max(1.0, scale)
            results[form] = difference if within else f"outputs differ by up to {difference:.0e}"
        except DistilkitError as error:
            results[form] = plain(str(error), place)
    return Row(model_type, results)
