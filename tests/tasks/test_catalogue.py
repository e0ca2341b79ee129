"""Task rows and their settings, reading them from every format, and what is refused."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from distilkit.errors import DistilkitError
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.record import record, write_biography
from distilkit.tasks import rows as task_data
from distilkit.tasks.catalogue import SPAN_OPTIONS, TASKS, Kind, resolve, with_task_defaults, with_training_settings
from distilkit.tasks.checks import check_labels

SST2, MNLI, IMDB = (TASKS[name] for name in ("sst2", "mnli", "imdb"))
CUSTOM = {"task": "custom", "text": ("title",), "label": "kind", "data": Path("data")}
ROWS = [{"sentence": 'a "good', "label": 1}, {"sentence": "NA", "label": 0}, {"sentence": "so, so", "label": 1}]


def config(**options: object) -> EvalOptions:
    return EvalOptions(models=("m",), **options)  # type: ignore[arg-type]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.parent


def write_as(path: Path, ending: str) -> None:
    """Write ROWS in the format that a file's ending names."""
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
    """The same rows come out of every format: stray quotes in TSV and the word NA are text."""
    write_as(tmp_path / f"train.{ending}", ending)
    assert task_data.read(SST2, tmp_path, "train").to_list() == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.jsonl' is empty"),
        (b"\n", "train.jsonl' is empty"),
        (b'{"sentence": "a"}\n', "no column 'label'.*it has sentence.*--task sst2"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": \n', "train.jsonl' cannot be read"),
        (b'{"sentence": "\xff\xfe", "label": 1}\n', "train.jsonl' cannot be read.*UTF8"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": "b", "label": 2}\n', "label 2 in row 2.*negative, positive"),
        (b'{"sentence": "a", "label": -1}\n', "label -1 in row 1.*test split"),
        (b'{"sentence": "a", "label": "good"}\n', "label 'good' in row 1"),
        (b'{"sentence": "a", "label": 1}\n{"sentence": null, "label": 1}\n', "no 'sentence' in row 2"),
        (b'{"sentence": ["a"], "label": 1}\n', "column 'sentence'.*holds more than text"),
    ],
)
def test_refuses_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that can't be used is refused in one line that names it, the column and the row."""
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(DistilkitError, match=message) as caught:
        task_data.read(SST2, tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("train.jsonl.gz", b"plain text"), ("train.parquet", b"plain text"), ("train.csv", b"sentence,label\n")],
)
def test_refuses_files_that_are_not_what_they_say(tmp_path: Path, name: str, content: bytes) -> None:
    """A file that isn't the format its name says, or has a header only, is refused by name."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilkitError, match=f"{name}' (cannot be read|has no rows)"):
        task_data.read(SST2, tmp_path, "train")


def test_refuses_missing_and_ambiguous_files(tmp_path: Path) -> None:
    """No folder, no file of the split, and two of them: each error names --data."""
    with pytest.raises(DistilkitError, match=r"no folder '.*nowhere'.*--data"):
        task_data.read(SST2, tmp_path / "nowhere", "train")
    with pytest.raises(DistilkitError, match=r"no train\.\{jsonl.*--data"):
        task_data.read(SST2, tmp_path, "train")
    write_as(tmp_path / "train.tsv", "tsv")
    write_as(tmp_path / "train.jsonl", "jsonl")
    with pytest.raises(DistilkitError, match=r"several files for train \(train.jsonl, train.tsv\)"):
        task_data.read(SST2, tmp_path, "train")


def test_without_the_hub_the_error_names_data() -> None:
    """Where the hub is out of reach, one line says which flag reads a folder."""
    with pytest.raises(DistilkitError, match=r"nyu-mll/glue.*--data"):
        task_data.read(SST2, None, "train")


def test_validation_splits(tmp_path: Path) -> None:
    """MNLI is scored on matched rows and, where they are there, on mismatched ones; IMDb falls back to test."""
    pair = {"premise": "a", "hypothesis": "b", "label": 2}
    write_jsonl(tmp_path / "mnli" / "validation_matched.jsonl", [pair])
    assert list(task_data.read_validation(MNLI, tmp_path / "mnli")) == ["mnli"]
    write_jsonl(tmp_path / "mnli" / "validation_mismatched.jsonl", [pair, pair])
    found = task_data.read_validation(MNLI, tmp_path / "mnli")
    assert {prefix: len(rows) for prefix, rows in found.items()} == {"mnli": 1, "mnli_mismatched": 2}
    review = {"text": "fine", "label": 1}
    write_jsonl(tmp_path / "imdb" / "test.jsonl", [review])
    assert len(task_data.read_validation(IMDB, tmp_path / "imdb")["imdb"]) == 1
    write_jsonl(tmp_path / "imdb" / "validation.jsonl", [review, review])
    assert len(task_data.read_validation(IMDB, tmp_path / "imdb")["imdb"]) == 2


@pytest.mark.parametrize("name", ["dev-v1.1.json", "dev-v1.1.json.gz", "validation.json"])
def test_reads_nested_squad(tmp_path: Path, name: str) -> None:
    """SQuAD's original JSON is read under its own name or ours, beside a 2.0 file that is another task's."""
    qas = [{"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}]}]
    article = {"title": "T", "paragraphs": [{"context": "Ann left.", "qas": qas}]}
    text = json.dumps({"data": [article], "version": "1.1"})
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    (tmp_path / "dev-v2.0.json").write_text("not read", encoding="utf-8")
    rows = task_data.read_validation(TASKS["squad"], tmp_path)["squad"]
    assert rows.to_list()[0]["answers"] == {"text": ["Ann"], "answer_start": [0]}


def test_refuses_a_squad_file_of_another_layout(tmp_path: Path) -> None:
    """Nested JSON that lacks a part is refused by name, with the part."""
    (tmp_path / "train.json").write_text('{"data": [{"title": "T"}]}', encoding="utf-8")
    with pytest.raises(DistilkitError, match=r"train.json' cannot be read \(not SQuAD's layout, KeyError\('paragr"):
        task_data.read(TASKS["squad"], tmp_path, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sst-2"}, "--task .*did you mean 'sst2'"),
        ({"task": "everything"}, "--task 'everything'"),
        ({**CUSTOM, "data": None}, "--task custom needs --data, --label and one or two --text"),
        ({**CUSTOM, "text": ("a", "b", "c")}, "--task custom needs"),
        ({"task": "sst2", "label": "x"}, "--text, --label and --kind are for --task custom"),
        ({"task": "sst2", "kind": "regression"}, "--text, --label and --kind are for --task custom"),
    ],
)
def test_resolve_refuses(options: dict[str, object], message: str) -> None:
    """An unknown task and options that do not go together are refused, with what to type instead."""
    with pytest.raises(DistilkitError, match=message):
        resolve(config(**options))


def test_resolve_glue() -> None:
    """`glue` is the nine tasks of the benchmark."""
    expected = ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    assert [task.name for task in resolve(config(task="glue"))] == expected


def settled(name: str, **options: Any) -> FinetuneOptions:
    return with_task_defaults(TASKS[name], FinetuneOptions(model="m", task=name, output=Path("o"), **options))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sst2", (32, 2e-5, 3, 128)),  # run_glue.py's README
        ("mrpc", (32, 2e-5, 5, 128)),
        ("wnli", (32, 2e-5, 5, 128)),
        ("squad", (12, 3e-5, 2, 384)),  # run_qa.py's README
        ("squad_v2", (12, 3e-5, 2, 384)),
        ("imdb", (24, 2e-5, 4, 512)),  # Sun et al. 2019, section 5.2
    ],
)
def test_published_settings(name: str, settings: tuple[float, ...]) -> None:
    """What is not given is as published for the task."""
    config = settled(name)
    assert (config.batch_size, config.lr, config.epochs, config.max_length) == settings
    assert config.long == "head"


def test_what_is_given_wins_over_the_task() -> None:
    """A setting that was given, even a 0, stays."""
    config = settled("imdb", lr=0.0, epochs=1.5, batch_size=2, long="windows")
    assert (config.batch_size, config.lr, config.epochs, config.max_length, config.long) == (
        2,
        0.0,
        1.5,
        512,
        "windows",
    )


def test_long_is_for_one_text() -> None:
    """A pair of texts is cut as it always is."""
    with pytest.raises(DistilkitError, match="--long windows is for rows of one text, and mrpc has two"):
        settled("mrpc", long="windows")


def test_scored_as_trained(tmp_path: Path) -> None:
    """A checkpoint is scored with the length and the reading of long texts that it was trained with on that task."""
    before = settled("imdb", max_length=96, long="head-tail")
    write_biography(tmp_path, [record("finetune", before, {})])
    used = with_training_settings(IMDB, config(task="imdb"), str(tmp_path))
    assert (used.max_length, used.long) == (96, "head-tail")
    used = with_training_settings(IMDB, config(task="imdb", long="head", max_length=64), str(tmp_path))
    assert (used.max_length, used.long) == (64, "head")
    assert with_training_settings(SST2, config(task="sst2"), str(tmp_path)).max_length == 128


def test_spans_are_scored_as_trained(tmp_path: Path) -> None:
    """What SQuAD's answers depend on is remembered too, a 0 as well; what was not given is the official script's."""
    squad = TASKS["squad"]
    write_biography(tmp_path, [record("finetune", settled("squad", stride=0, n_best=7), {})])
    used = with_training_settings(squad, config(task="squad", n_best=3), str(tmp_path))
    assert (used.stride, used.n_best, used.max_answer_length, used.null_threshold) == (0, 3, 30, 0.0)


CUSTOM_TASK = replace(SST2, name="custom", kind="classification", text=("title",), labels=(), label="kind", dataset="")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.csv", "title,kind\nx,pos\ny,\n"),
        ("train.csv", "title,kind\nx,1.5\ny,\n"),
        ("train.jsonl", '{"title": "x", "kind": ["a"]}\n{"title": "y", "kind": ["b", null]}\n'),
        ("train.jsonl", '{"title": "x", "kind": 1.5}\n{"title": "y", "kind": NaN}\n'),
    ],
)
def test_an_empty_label_is_no_class(tmp_path: Path, file: str, text: str) -> None:
    """A cell that is blank, a hole in a list, and no number: each is named with its row."""
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(DistilkitError, match="has no 'kind' in row 2: fill it in or drop the row"):
        task_data.read(CUSTOM_TASK, tmp_path, "train")


def test_labels_in_a_column_each(tmp_path: Path) -> None:
    """Columns of 0 and 1 become lists of the names of those that hold a 1."""
    (tmp_path / "train.csv").write_text("title,good,bad\nx,1,0\ny,1,1\nz,0,0\n", encoding="utf-8")
    rows = task_data.read(replace(CUSTOM_TASK, label="bad,good"), tmp_path, "train")
    assert rows["bad,good"][:] == [["good"], ["bad", "good"], []]


@pytest.mark.parametrize(
    ("label", "cell", "message"),
    [
        ("good,bad", "2", "has bad 2 in row 1: a column for each label holds 0 or 1"),
        ("good,ugly", "1", "no column 'ugly'"),
    ],
)
def test_refuses_label_columns(tmp_path: Path, label: str, cell: str, message: str) -> None:
    """A column that is missing or holds anything else is named."""
    (tmp_path / "train.csv").write_text(f"title,good,bad\nx,1,{cell}\n", encoding="utf-8")
    with pytest.raises(DistilkitError, match=message):
        task_data.read(replace(CUSTOM_TASK, label=label), tmp_path, "train")


def test_a_custom_task_may_be_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """--data name:config is read from the hub; numbered classes go by name; without validation, test is scored."""
    features = Features({"title": Value("string"), "kind": ClassLabel(names=["ham", "spam"])})
    asked = []

    def load(name: str, subset: str, split: str) -> Dataset:
        asked.append((name, subset, split))
        return Dataset.from_dict({"title": ["a", "b"], "kind": [1, 0]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: ["train", "test"])
    options = CUSTOM | {"data": Path("someone/mails:english")}
    [task] = resolve(config(**options))
    assert task_data.read(task, Path("someone/mails:english"), "train")["kind"][:] == ["spam", "ham"]
    task_data.read_validation(task, Path("someone/mails:english"))
    assert asked == [("someone/mails", "english", "train"), ("someone/mails", "english", "test")]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("regression", "big", "has kind 'big' in row 1, outside custom's \\(numbers\\)"),
        ("multi-label", "a", "'x' has one value a row in kind"),
        ("classification", ["a"], "'x' has lists in kind"),
    ],
)
def test_check_labels(kind: Kind, value: object, message: str) -> None:
    """Rows of another kind than the task's are refused."""
    rows = Dataset.from_dict({"kind": [value]})
    with pytest.raises(DistilkitError, match=message):
        check_labels(rows, replace(CUSTOM_TASK, kind=kind, labels=("a", "b")), "x")


def questions(**changes: object) -> list[dict[str, Any]]:
    """Two rows as SQuAD's, with other values for some columns."""
    row = {"question": "who?", "context": "Ann left.", "answers": {"text": ["Ann"], "answer_start": [0]}}
    return [{**row, "id": number, **changes} for number in (1, 2)]


def test_numbers_for_ids_become_text(tmp_path: Path) -> None:
    """What predictions go by is text, as in SQuAD's files."""
    write_jsonl(tmp_path / "train.jsonl", questions())
    rows = task_data.read(TASKS["squad"], tmp_path, "train")
    assert rows["id"][:] == ["1", "2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "x"}, "several rows with the id 'x'"),
        ({"answers": [{"text": "Ann", "answer_start": 0}]}, "aren't laid out like SQuAD's"),
        ({"answers": "Ann"}, "aren't laid out like SQuAD's"),
        ({"answers": {"text": ["Ann"], "answer_start": ["0"]}}, "aren't laid out like SQuAD's"),
        ({"answers": {"text": ["Ann", "she"], "answer_start": [0]}}, "an answer without its text or its start at '1'"),
        (
            {"answers": {"text": [None, "Ann"], "answer_start": [0, 0]}},
            "an answer without its text or its start at '1'",
        ),
        ({"question": 7}, "a column 'question' that is no text"),
    ],
)
def test_refuses_questions_that_cannot_be_scored(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    """Before the first update, not at the first evaluation."""
    write_jsonl(tmp_path / "train.jsonl", questions(**changes))
    with pytest.raises(DistilkitError, match=message):
        task_data.read(TASKS["squad"], tmp_path, "train")


def test_refuses_a_squad_file_without_questions(tmp_path: Path) -> None:
    """An empty list of articles is no layout of another kind."""
    (tmp_path / "train.json").write_text('{"data": [], "version": "1.1"}', encoding="utf-8")
    with pytest.raises(DistilkitError, match="has no rows"):
        task_data.read(TASKS["squad"], tmp_path, "train")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't the output that can't be written."""
    write_jsonl(tmp_path / "train.jsonl", [{"sentence": "a", "label": 0}])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(task_data, "open", refuse, raising=False)
    with pytest.raises(DistilkitError, match=r"train.jsonl' cannot be read \(Permission denied\)"):
        task_data.read(TASKS["sst2"], tmp_path, "train")


def test_lists_of_numbered_classes_become_names(tmp_path: Path) -> None:
    """As the hub's multi-label data sets have them."""
    classes = Features({"t": Value("string"), "l": datasets.List(ClassLabel(names=["joy", "fear"]))})
    rows = Dataset.from_dict({"t": ["a", "b"], "l": [[1, 0], []]}, features=classes)
    task = resolve(EvalOptions(models=("m",), task="custom", text=("t",), label="l", data=tmp_path))[0]
    assert task_data.with_label_names(rows, task, "rows")["l"][:] == [["fear", "joy"], []]


def test_a_hidden_label_is_refused_in_one_line(tmp_path: Path) -> None:
    """-1 is no class that has a name."""
    classes = Features({"t": Value("string"), "l": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"t": ["a", "b"], "l": [-1, 0]}, features=classes).to_parquet(tmp_path / "train.parquet")
    task = resolve(EvalOptions(models=("m",), task="custom", text=("t",), label="l", data=tmp_path))[0]
    task = replace(task, labels=("no", "yes"))
    with pytest.raises(DistilkitError, match="a test split without labels can't be used"):
        task_data.read(task, tmp_path, "train")


@pytest.mark.parametrize("name", SPAN_OPTIONS)
def test_what_is_squad_s_alone_is_refused_elsewhere(name: str) -> None:
    """It would be passed over without a word."""
    with pytest.raises(DistilkitError, match=f"--{name.replace('_', '-')} is for --task squad"):
        with_training_settings(SST2, config(task="sst2", **{name: 5}), "m")
    assert getattr(with_training_settings(TASKS["squad"], config(task="squad", **{name: 5}), "m"), name) == 5
