"""Questions, passages and which belong together: pairs, BEIR's files, SQuAD's own JSON."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distilkit.data.readers import file_type, open_file
from distilkit.data.tables import column_names, parse_json, read_table
from distilkit.errors import DistilkitError
from distilkit.tasks import squad

REMEDY = "fix the file or use another --data"
CORPUS, QUERIES = "corpus", "queries"  # of BEIR, beside a folder qrels
SPLITS = ("test", "dev", "validation")  # the first of these is scored
PAIR, PAIR_OF_SQUAD = ("query", "passage"), ("question", "context")


@dataclass(frozen=True)
class RetrievalRows:
    """Distinct queries and passages, and for each query the grade of each passage that answers it, by number."""

    queries: list[str]
    passages: list[str]
    relevant: list[dict[int, float]]


def read_retrieval(data: Path, columns: tuple[str, ...] | None = None) -> RetrievalRows:
    """Read a file of pairs (`columns` names its two), a SQuAD file, or a folder in BEIR's layout.

    Raises DistilkitError if it has another layout, or no pair.
    """
    if columns and len(columns) != 2:
        raise DistilkitError("--text takes two columns for --task retrieval, a query's and a passage's: give both")
    if data.is_dir() and _find(data, CORPUS):
        rows = _read_beir(data)
    else:
        path = _find_split(data) if data.is_dir() else data
        rows = collect(_squad_pairs(path) if _is_squad(path) else _pairs(path, columns or PAIR))
    if not rows.queries:
        raise DistilkitError(f"'{data}' has no query with a passage: {REMEDY}")
    return rows


def collect(pairs: Iterable[tuple[str, str]]) -> RetrievalRows:
    """Number the distinct texts of pairs of a query and a passage. A query may have several passages."""
    queries: dict[str, dict[int, float]] = {}
    passages: dict[str, int] = {}
    for query, passage in pairs:
        number = passages.setdefault(passage, len(passages))
        queries.setdefault(query, {})[number] = 1.0
    return RetrievalRows([*queries], [*passages], [*queries.values()])


def _pairs(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    names = column_names(path)
    if missing := [name for name in columns if name not in names]:
        raise DistilkitError(
            f"no column '{missing[0]}' in '{path}' (it has {', '.join(names)}): name two with --text QUERY,PASSAGE"
        )
    for number, row in enumerate(read_table(path, columns), 1):
        query, passage = (_text(row.get(name), f"row {number}", path) for name in columns)
        yield query, passage


def _text(value: object, place: str, path: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DistilkitError(f"'{path}' has no text in {place}: {REMEDY}")
    return value


def _is_squad(path: Path) -> bool:
    if file_type(path) != ".json":
        return False
    with open_file(path, f"'{path}'", REMEDY) as file:
        return file.read(4096).lstrip()[:1] == b"{"


def _squad_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each question with its paragraph; unanswerable questions of SQuAD 2.0 have none."""
    source = f"'{path}'"
    with open_file(path, source, REMEDY) as file:
        document = parse_json(file.read())
    try:
        rows = squad.flatten(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise DistilkitError(f"{source} cannot be read (not SQuAD's layout: {error!r}): {REMEDY}") from None
    for number, row in enumerate(rows, 1):
        question, context = (_text(row[name], f"'{name}' of question {number}", path) for name in PAIR_OF_SQUAD)
        if row["answers"]["text"]:
            yield question.strip(), context


def _find(folder: Path, stem: str, endings: tuple[str, ...] = (".jsonl", ".jsonl.gz")) -> Path | None:
    return next((path for ending in endings if (path := folder / f"{stem}{ending}").is_file()), None)


def _find_split(folder: Path) -> Path:
    endings = tuple(name + gz for name in (".jsonl", ".json", ".tsv", ".csv", ".parquet") for gz in ("", ".gz"))
    found = [path for split in ("validation", "dev", "test") if (path := _find(folder, split, endings))]
    if not found:
        raise DistilkitError(
            f"'{folder}' has no validation.*, dev.* or test.*, and no corpus.jsonl: give a file, or a folder of BEIR"
        )
    return found[0]


def _read_beir(folder: Path) -> RetrievalRows:
    """Read corpus.jsonl, queries.jsonl and qrels/test.tsv (or dev, or qrels.tsv). Titles stand before their texts."""
    corpus, queries = _find(folder, CORPUS), _find(folder, QUERIES)
    judged = [_find(folder / "qrels", split, (".tsv", ".tsv.gz")) for split in SPLITS]
    qrels = next((path for path in (*judged, _find(folder, "qrels", (".tsv", ".tsv.gz"))) if path), None)
    if corpus is None or queries is None or qrels is None:
        lacking = "queries.jsonl" if queries is None else "qrels/test.tsv"
        raise DistilkitError(f"'{folder}' has a corpus.jsonl but no {lacking}: add it")
    passages, texts = dict(_beir_texts(corpus)), dict(_beir_texts(queries))
    numbers = {key: number for number, key in enumerate(passages)}
    relevant: dict[str, dict[int, float]] = {}
    for row, (query, passage, grade) in enumerate(_judgements(qrels), 1):
        if query not in texts or passage not in numbers:
            missing, file = (query, queries) if query not in texts else (passage, corpus)
            raise DistilkitError(f"'{qrels}' names '{missing}' in row {row}, which '{file}' lacks: {REMEDY}")
        if grade > 0:
            relevant.setdefault(query, {})[numbers[passage]] = grade
    return RetrievalRows([texts[key] for key in relevant], [*passages.values()], [*relevant.values()])


def _beir_texts(path: Path) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(read_table(path), 1):
        if "_id" not in row or not isinstance(row.get("text"), str):
            raise DistilkitError(f"'{path}' has no _id or no text in row {number}: {REMEDY}")
        yield str(row["_id"]), f"{row.get('title') or ''} {row['text']}".strip()


def _judgements(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield the query, passage and grade of each row: BEIR's three columns, or trec_eval's four without a header."""
    with open_file(path, f"'{path}'", REMEDY) as file:
        lines = file.read().decode("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) == 4:
            del fields[1]
        try:
            query, passage, grade = fields
            yield query, passage, float(grade)
        except ValueError:
            if number == 1 or not fields:  # the header, and empty lines
                continue
            raise DistilkitError(f"'{path}' has no query, passage and grade in row {number}: {REMEDY}") from None
