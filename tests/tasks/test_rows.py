"""Read the rows of a task: every file format, the hub, splits and label columns."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from distilkit.data import readers
from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
from distilkit.tasks import rows as task_rows
from distilkit.tasks.catalogue import TASKS, resolve
from distilkit.tasks.labels import label_to_target
from distilkit.tasks.rows import read_rows, read_validation

SST2, MNLI, IMDB = (TASKS[name] for name in ("sst2", "mnli", "imdb"))
ROWS = [{"sentence": 'a "good', "label": 1}, {"sentence": "NA", "label": 0}, {"sentence": "so, so", "label": 1}]
CUSTOM = {"models": ("m",), "task": "custom", "text": ("title",), "label": "kind"}
[CUSTOM_TASK] = resolve(EvalOptions(**CUSTOM, data=Path()))


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def write_as(path: Path, ending: str) -> None:
    """Write ROWS in the format of a file name's ending."""
    table = [("sentence", "label"), *((row["sentence"], row["label"]) for row in ROWS)]
    texts = {
        "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
        "json": json.dumps(ROWS),
        "tsv": "".join(f"{sentence}\t{label}\n" for sentence, label in table),
        "csv": 'sentence,label\n"a ""good",1\nNA,0\n"so, so",1\n',
    }
    if ending == "parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    elif ending.endswith(".gz"):
        path.write_bytes(gzip.compress(texts[ending.removesuffix(".gz")].encode()))
    else:
        path.write_text(texts[ending], encoding="utf-8")


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "tsv", "tsv.gz", "csv", "parquet"])
def test_reads_every_format(tmp_path: Path, ending: str) -> None:
    """Every format gives the same rows; labels of csv and tsv are text. Unbalanced quotes and the word NA are text."""
    write_as(tmp_path / f"train.{ending}", ending)
    rows = read_rows(SST2, tmp_path, "train")
    assert rows["sentence"][:] == [row["sentence"] for row in ROWS]
    assert [label_to_target(SST2, value) for value in rows["label"]] == [row["label"] for row in ROWS]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.jsonl' is empty"),
        (b"\n", "train.jsonl' is empty"),
        (b'{"sentence": "a"}\n', "'label'.*train.jsonl'.*sentence.*--task sst2"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": \n', "train.jsonl' cannot be read"),
        (b'{"sentence": "\xff\xfe", "label": 1}\n', "train.jsonl' is not UTF-8"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": "b", "label": 2}\n', "label 2 in row 2.*negative, positive"),
        (b'{"sentence": "a", "label": -1}\n', "label -1 in row 1.*split with labels"),
        (b'{"sentence": "a", "label": "good"}\n', "label 'good' in row 1"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": null, "label": 1}\n', "'sentence' in row 2"),
        (b'{"sentence": ["a"], "label": 1}\n', "column 'sentence' in '.*train.jsonl'"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A bad file gives a one-line error with its name and, where it applies, the column and row."""
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(DistilkitError, match=message) as caught:
        read_rows(SST2, tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("train.jsonl.gz", b"plain text"), ("train.parquet", b"plain text"), ("train.csv", b"sentence,label\n")],
)
def test_files_of_another_format_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """A file in another format than its name says, and a header without rows, give an error with the file's name."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilkitError, match=f"{name}' (cannot be read|has no rows)"):
        read_rows(SST2, tmp_path, "train")


def test_missing_and_ambiguous_files_are_refused(tmp_path: Path) -> None:
    """A missing folder, a missing file and two files for one split give errors that name --data."""
    with pytest.raises(DistilkitError, match=r"nowhere'.*--data"):
        read_rows(SST2, tmp_path / "nowhere", "train")
    with pytest.raises(DistilkitError, match=r"train\.\{jsonl.*--data"):
        read_rows(SST2, tmp_path, "train")
    write_as(tmp_path / "train.tsv", "tsv")
    write_as(tmp_path / "train.jsonl", "jsonl")
    with pytest.raises(DistilkitError, match=r"--data .*\(train.jsonl, train.tsv\)"):
        read_rows(SST2, tmp_path, "train")


def test_without_the_hub_the_error_names_data() -> None:
    """If the hub cannot be reached, the error suggests --data."""
    with pytest.raises(DistilkitError, match=r"nyu-mll/glue.*--data"):
        read_rows(SST2, None, "train")


def test_validation_splits(tmp_path: Path) -> None:
    """MNLI is scored on matched rows and, if present, mismatched ones. IMDb without validation rows uses test rows."""
    pair = {"premise": "a", "hypothesis": "b", "label": 2}
    write_jsonl(tmp_path / "mnli" / "validation_matched.jsonl", [pair])
    assert list(read_validation(MNLI, tmp_path / "mnli")) == ["mnli"]
    write_jsonl(tmp_path / "mnli" / "validation_mismatched.jsonl", [pair, pair])
    found = read_validation(MNLI, tmp_path / "mnli")
    assert {prefix: len(rows) for prefix, rows in found.items()} == {"mnli": 1, "mnli_mismatched": 2}
    review = {"text": "fine", "label": 1}
    write_jsonl(tmp_path / "imdb" / "test.jsonl", [review])
    assert len(read_validation(IMDB, tmp_path / "imdb")["imdb"]) == 1
    write_jsonl(tmp_path / "imdb" / "validation.jsonl", [review, review])
    assert len(read_validation(IMDB, tmp_path / "imdb")["imdb"]) == 2


@pytest.mark.parametrize("name", ["dev-v1.1.json", "dev-v1.1.json.gz", "validation.json"])
def test_reads_nested_squad(tmp_path: Path, name: str) -> None:
    """SQuAD's original JSON is read under either name. A file of SQuAD 2.0 in the same folder is ignored."""
    qas = [{"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}]}]
    article = {"title": "T", "paragraphs": [{"context": "Ann left.", "qas": qas}]}
    text = json.dumps({"data": [article], "version": "1.1"})
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    (tmp_path / "dev-v2.0.json").write_text("not read", encoding="utf-8")
    rows = read_validation(TASKS["squad"], tmp_path)["squad"]
    assert rows.to_list()[0]["answers"] == {"text": ["Ann"], "answer_start": [0]}


def test_a_squad_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    """Nested JSON without one of SQuAD's keys gives an error with the file and the key."""
    (tmp_path / "train.json").write_text('{"data": [{"title": "T"}]}', encoding="utf-8")
    with pytest.raises(DistilkitError, match=r"train.json' .*KeyError\('paragraphs"):
        read_rows(TASKS["squad"], tmp_path, "train")


def test_a_squad_file_without_questions_is_refused(tmp_path: Path) -> None:
    """An empty list of articles is reported as missing rows, not as another layout."""
    (tmp_path / "train.json").write_text('{"data": [], "version": "1.1"}', encoding="utf-8")
    with pytest.raises(DistilkitError, match=r"train.json' has no rows"):
        read_rows(TASKS["squad"], tmp_path, "train")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which file cannot be read, so that nobody looks for it in the output directory."""
    write_jsonl(tmp_path / "train.jsonl", [{"sentence": "a", "label": 0}])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(readers, "open", refuse, raising=False)
    with pytest.raises(DistilkitError, match=r"train.jsonl' cannot be read \(Permission denied\)"):
        read_rows(TASKS["sst2"], tmp_path, "train")


def test_labels_in_a_column_each(tmp_path: Path) -> None:
    """Columns of 0 and 1 become lists: the names of the columns that hold a 1."""
    (tmp_path / "train.csv").write_text("title,good,bad\nx,1,0\ny,1,1\nz,0,0\n", encoding="utf-8")
    rows = read_rows(replace(CUSTOM_TASK, label="bad,good"), tmp_path, "train")
    assert rows["bad,good"][:] == [["good"], ["bad", "good"], []]


@pytest.mark.parametrize(
    ("label", "cell", "message"),
    [
        ("good,bad", "2", "train.csv' has bad '2' in row 1"),
        ("good,ugly", "1", "column 'ugly'"),
    ],
)
def test_bad_label_columns_are_refused(tmp_path: Path, label: str, cell: str, message: str) -> None:
    """The error names a label column that is missing or holds anything but 0 and 1."""
    (tmp_path / "train.csv").write_text(f"title,good,bad\nx,1,{cell}\n", encoding="utf-8")
    with pytest.raises(DistilkitError, match=message):
        read_rows(replace(CUSTOM_TASK, label=label), tmp_path, "train")


def test_lists_of_class_ids_become_names() -> None:
    """Lists of class ids, as in the hub's multi-label data sets, become lists of names."""
    features = Features({"title": Value("string"), "kind": datasets.List(ClassLabel(names=["joy", "fear"]))})
    rows = Dataset.from_dict({"title": ["a", "b"], "kind": [[1, 0], []]}, features=features)
    assert task_rows.with_label_names(rows, CUSTOM_TASK, "rows")["kind"][:] == [["fear", "joy"], []]


def test_a_custom_task_may_be_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """--data name:config is read from the hub: class ids become names, and test rows stand in for validation rows."""
    features = Features({"title": Value("string"), "kind": ClassLabel(names=["ham", "spam"])})
    requests = []

    def load(name: str, subset: str, split: str) -> Dataset:
        requests.append((name, subset, split))
        return Dataset.from_dict({"title": ["a", "b"], "kind": [1, 0]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: ["train", "test"])
    data = Path("someone/mails:english")
    [task] = resolve(EvalOptions(**CUSTOM, data=data))
    assert read_rows(task, data, "train")["kind"][:] == ["spam", "ham"]
    read_validation(task, data)
    assert requests == [("someone/mails", "english", "train"), ("someone/mails", "english", "test")]
