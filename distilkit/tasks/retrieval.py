"""Questions, passages and which belong together: pairs, BEIR's files, SQuAD's own JSON."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distilkit.data.readers import file_type, open_file
from distilkit.data.tables import column_names, parse_json, read_table
from distilkit.errors import DistilkitError
from distilkit.progress import say
from distilkit.tasks import squad
from distilkit.tasks.columns import LARGEST, to_number

REMEDY = "fix the file or use another --data"
CORPUS, QUERIES = "corpus", "queries"  # of BEIR, beside a folder qrels
SPLITS = ("test", "dev", "validation")  # the first of these is scored
PAIR, PAIR_OF_SQUAD = ("query", "passage"), ("question", "context")
GRADES = ("label", "score")  # columns of pairs that say how well a passage answers its query


@dataclass(frozen=True)
class RetrievalRows:
    """Distinct queries and passages, and for each query the grade of each passage that answers it, by number."""

    queries: list[str]
    passages: list[str]
    relevant: list[dict[int, float]]


def read_retrieval(data: Path, columns: tuple[str, ...] | None = None) -> RetrievalRows:
    """Read a file of pairs (`columns` names its two), a SQuAD file, or a folder in BEIR's layout.

    A passage is relevant for a query if its grade is above 0. The highest of several grades counts. Pairs have the
    grade 1 unless a column `label` or `score` has a number of 0 or more in every row. A query without a relevant
    passage is left out, and a note counts those that have grades.
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


def collect(pairs: Iterable[tuple[str, str, float]]) -> RetrievalRows:
    """Number the distinct texts of triples of a query, a passage and its grade. A query may have several passages."""
    queries: dict[str, dict[int, float]] = {}
    passages: dict[str, int] = {}
    for query, passage, grade in pairs:
        number = passages.setdefault(passage, len(passages))
        _judge(queries, query, number, grade)
    answered = _answered(queries)
    return RetrievalRows([*answered], [*passages], [*answered.values()])


def _judge(relevant: dict[str, dict[int, float]], query: str, passage: int, grade: float) -> None:
    grades = relevant.setdefault(query, {})
    if grade > 0:
        grades[passage] = max(grade, grades.get(passage, 0.0))


def _answered(relevant: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """Return the queries that have a relevant passage; a note counts the others."""
    answered = {query: grades for query, grades in relevant.items() if grades}
    if left_out := len(relevant) - len(answered):
        say(f"{left_out} of {len(relevant)} queries are left out: none of their grades is above 0")
    return answered


def _pairs(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, str, float]]:
    names = column_names(path)
    if missing := [name for name in columns if name not in names]:
        raise DistilkitError(
            f"no column '{missing[0]}' in '{path}' (it has {', '.join(names)}): name two with --text QUERY,PASSAGE"
        )
    candidates = [name for name in GRADES if name in names and name not in columns]
    rows = list(read_table(path, [*columns, *candidates]))
    graded = next((name for name in candidates if all(_is_grade(row.get(name)) for row in rows)), None)
    if candidates and graded is None:
        say(
            f"the column '{candidates[0]}' of '{path}' is ignored: grades are numbers of 0 or more, one in every row; "
            "every pair counts as relevant"
        )
    for number, row in enumerate(rows, 1):
        query, passage = (_text(row.get(name), f"row {number}", path) for name in columns)
        yield query, passage, float(row[graded]) if graded else 1.0


def _is_grade(value: object) -> bool:
    grade = to_number(value)
    return grade is not None and 0 <= grade <= LARGEST


def _grade(value: object, place: str, path: Path) -> float:
    grade = to_number(value)
    if grade is None or abs(grade) > LARGEST:
        shown = str(value)[:40]
        raise DistilkitError(
            f"'{path}' has {shown!r} as the grade in {place}: write a number up to {LARGEST:g}, 0 for no answer"
        )
    return grade


def _text(value: object, place: str, path: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DistilkitError(f"'{path}' has no text in {place}: {REMEDY}")
    return value


def _is_squad(path: Path) -> bool:
    if file_type(path) != ".json":
        return False
    with open_file(path, f"'{path}'", REMEDY) as file:
        return file.read(4096).lstrip()[:1] == b"{"


def _squad_pairs(path: Path) -> Iterator[tuple[str, str, float]]:
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
            yield question.strip(), context, 1.0


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
    passages, texts = _beir_texts(corpus), _beir_texts(queries)
    numbers = {key: number for number, key in enumerate(passages)}
    relevant: dict[str, dict[int, float]] = {}
    for line, query, passage, grade in _judgements(qrels, texts):
        if query not in texts or passage not in numbers:
            missing, file = (query, queries) if query not in texts else (passage, corpus)
            raise DistilkitError(f"'{qrels}' names '{missing}' in line {line}, which '{file}' lacks: {REMEDY}")
        if not texts[query]:
            raise DistilkitError(f"'{queries}' has no text in the query '{query}': {REMEDY}")
        _judge(relevant, query, numbers[passage], grade)
    answered = _answered(relevant)
    return RetrievalRows([texts[key] for key in answered], [*passages.values()], [*answered.values()])


def _beir_texts(path: Path) -> dict[str, str]:
    """Return the texts of a file by their ids, each after its title."""
    found: dict[str, str] = {}
    for number, row in enumerate(read_table(path), 1):
        key, title, text = row.get("_id"), row.get("title"), row.get("text")
        if not isinstance(key, str | int) or not isinstance(text, str):
            raise DistilkitError(f"'{path}' has no _id or no text in row {number}: {REMEDY}")
        if not isinstance(title, str | None):
            raise DistilkitError(f"'{path}' has a title that is no text in row {number}: {REMEDY}")
        titled = f"{title or ''} {text}".strip()
        if found.setdefault(str(key), titled) != titled:
            raise DistilkitError(f"'{path}' has the _id '{key}' again in row {number}, with another text: {REMEDY}")
    return found


def _judgements(path: Path, queries: Container[str]) -> Iterator[tuple[int, str, str, float]]:
    """Yield line, query, passage and grade: BEIR's three columns, or trec_eval's four, with or without a header.

    The first line is a header if it begins with the id of none of the queries.
    """
    with open_file(path, f"'{path}'", REMEDY) as file:
        lines = file.read().decode("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) == 4:
            del fields[1]
        if not fields or (number == 1 and fields[0] not in queries and to_number(fields[-1]) is None):
            continue
        if len(fields) != 3:
            raise DistilkitError(f"'{path}' has no query, passage and grade in line {number}: {REMEDY}")
        yield number, fields[0], fields[1], _grade(fields[2], f"line {number}", path)
