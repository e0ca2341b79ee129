"""The file of each split of a labelled data set: a folder's train.* and validation.*, or one file for all."""

from pathlib import Path

from distilkit.data import conll
from distilkit.data.tables import ENDINGS
from distilkit.errors import DistilkitError

CONLL_VALIDATION = ("valid", "dev")  # usual names in sets of CoNLL files
SQUAD_NAMES = {"squad": "v1", "squad_v2": "v2"}


def split_files(task: str, kind: str, data: Path, split: str) -> list[Path]:
    """Return the files of a split. A file that is given instead of a folder holds every split of --task custom.

    So does the only table in a folder, whatever its name. SQuAD's and CoNLL's own file names are known.
    """
    if data.is_file():
        return [data] if task == "custom" else []
    endings = [name + gz for name in _endings(kind) for gz in ("", ".gz") if name + gz != ".parquet.gz"]

    def named(*stems: str) -> list[Path]:
        return [path for stem in stems for ending in endings if (path := data / (stem + ending)).is_file()]

    found = named(split)
    if kind == "tokens" and not found and split == "validation":
        found = named(*CONLL_VALIDATION)
    if task in SQUAD_NAMES and not found:  # train-v1.1.json, dev-v2.0.json.gz, …
        stems = ("train",) if split == "train" else (split, "dev")
        paths = sorted(path for stem in stems for path in data.glob(f"{stem}*.json*"))
        found = [path for path in paths if f"-{SQUAD_NAMES[task]}" in path.name]
        found = found or [path for path in paths if "-v" not in path.name]
    if task == "custom" and not found and split == "train" and data.is_dir():
        tables = [path for path in sorted(data.iterdir()) if path.name.endswith(tuple(endings)) and path.is_file()]
        found = tables if len(tables) == 1 else []
    return found


def find_file(task: str, kind: str, data: Path, split: str) -> Path:
    """Return the file of a split.

    Raises DistilkitError if the folder is missing, or if it has no file or several files for the split.
    """
    found = split_files(task, kind, data, split)
    if not found and not data.is_dir():
        what = "file or folder" if task == "custom" else "folder"
        raise DistilkitError(f"no {what} '{data}': use a folder with train.* and validation.* as --data")
    if not found:
        expected = f"{split}.{{{','.join(ending[1:] for ending in _endings(kind))}}}"
        raise DistilkitError(f"no {expected} (or .gz) for {task} in --data '{data}': add one")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DistilkitError(f"--data '{data}' has several files for {split} ({names}): keep only one")
    return found[0]


def _endings(kind: str) -> tuple[str, ...]:
    return (*ENDINGS, *conll.ENDINGS) if kind == "tokens" else ENDINGS
