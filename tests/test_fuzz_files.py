"""Readers of text, rows and checkpoints take any file: they return its content, or raise one kind of error."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import as_json, changed, check_file, damaged, many, odd_text, odd_value
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig

from distilkit.data.conll import read_sentences
from distilkit.data.corpus import stream_documents, texts
from distilkit.data.own_rows import with_own_rows
from distilkit.data.tables import read_table
from distilkit.encoders import checkpoint
from distilkit.encoders.sentence_layout import read_layout
from distilkit.encoders.weights import read_tensors
from distilkit.options.finetune import FinetuneOptions
from distilkit.runtimes.exported import format_of
from distilkit.tasks.catalogue import resolve
from distilkit.tasks.retrieval import read_retrieval
from distilkit.tasks.rows import read_rows

pytestmark = pytest.mark.slow

cell = st.one_of(
    odd_text, st.sampled_from(["a", "b", "good", "1", "0.5", "", '"', "the cat saw it", "true", "2024-01-01"])
)
row = changed({"text": "the cat", "label": "a"})
json_rows = st.lists(st.one_of(row, odd_value), max_size=6).map(lambda rows: "\n".join(map(as_json, rows)))
separated = st.tuples(st.sampled_from([",", "\t", ";", "|"]), st.lists(st.lists(cell, max_size=4), max_size=6)).map(
    lambda parts: "\n".join(["text,label".replace(",", parts[0]), *(parts[0].join(cells) for cells in parts[1])])
)
tables = st.one_of(
    st.tuples(st.sampled_from([".jsonl", ".json"]), damaged(json_rows)),
    st.tuples(st.sampled_from([".csv", ".tsv"]), damaged(separated)),
)


@many
@given(tables)
def test_tables(tmp_path: Path, table: tuple[str, bytes]) -> None:
    """A row maps names to values, and own rows get columns that the table has."""
    path = tmp_path / f"rows{table[0]}"
    rows = check_file(path, table[1], lambda: list(read_table(path)))
    assert rows is None or all(isinstance(name, str) for found in rows for name in found)
    options = FinetuneOptions(model="m", output=tmp_path / "o", data=path)
    found = check_file(path, table[1], lambda: with_own_rows(options))
    assert found is None or (found.text and found.label)


def parquet(columns: dict[str, Any]) -> bytes:
    """Write columns as parquet."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


PARQUET = [
    parquet({"text": ["the cat", "a dog"], "label": ["a", "b"]}),
    parquet({"text": [b"the cat", b"a dog"], "label": [[1, 0], [0, 1]]}),
    parquet({"text": [["the", "cat"], ["a"]], "label": [1.5, None]}),
]


@many
@given(st.sampled_from(PARQUET), st.integers(0, 10**4), st.binary(max_size=4), st.booleans())
def test_damaged_parquet(tmp_path: Path, data: bytes, place: int, change: bytes, cut: bool) -> None:
    """Its rows are read, or it is an error of the user's."""
    place %= len(data)
    damage = data[:place] + (b"" if cut else change + data[place + len(change) :])
    path = tmp_path / "rows.parquet"
    check_file(path, damage, lambda: list(read_table(path)))


sentence_lines = st.lists(st.lists(cell, max_size=4).map(" ".join), max_size=8).map("\n".join)


@many
@given(damaged(sentence_lines))
def test_conll(tmp_path: Path, data: bytes) -> None:
    """A sentence has as many tags as words."""
    path = tmp_path / "rows.conll"
    found = check_file(path, data, lambda: list(read_sentences(path)))
    assert all(len({len(values) for values in sentence.values()}) == 1 for sentence in found or [])


documents = st.lists(cell, max_size=6).map("\n".join)


@many
@given(st.one_of(st.tuples(st.just(".txt"), damaged(documents)), st.tuples(st.just(".jsonl"), damaged(json_rows))))
def test_corpora(tmp_path: Path, file: tuple[str, bytes]) -> None:
    """Documents are texts."""
    path = tmp_path / f"corpus{file[0]}"
    found = check_file(path, file[1], lambda: list(texts(stream_documents(str(path)))))
    assert all(isinstance(text, str) for text in found or [])


ANSWERS = {"text": ["cat"], "answer_start": [4]}
squad_rows = changed({"id": "1", "question": "who", "context": "the cat", "answers": ANSWERS}).map(as_json)
nested = st.builds(
    lambda question, paragraph, article: as_json(
        {"data": [article | {"paragraphs": [paragraph | {"qas": [question]}]}]}
    ),
    changed({"id": "1", "question": "who", "answers": [{"text": "cat", "answer_start": 4}], "is_impossible": False}),
    changed({"context": "the cat"}),
    changed({"title": "x"}),
)
tagged = changed({"tokens": ["the", "cat"], "ner_tags": ["O", "B-X"]}).map(as_json)
tasks = st.one_of(
    st.tuples(st.just({"task": "sst2"}), damaged(changed({"sentence": "the cat", "label": 1}).map(as_json))),
    st.tuples(
        st.just({"task": "stsb"}), damaged(changed({"sentence1": "a", "sentence2": "b", "label": 1.5}).map(as_json))
    ),
    st.tuples(st.just({"task": "squad"}), damaged(st.one_of(squad_rows, nested))),
    st.tuples(st.just({"task": "custom", "text": ("text",), "label": "label"}), damaged(json_rows)),
    st.tuples(st.just({"task": "custom", "text": ("tokens",), "label": "ner_tags", "kind": "tokens"}), damaged(tagged)),
)


@many
@given(tasks)
def test_rows_of_tasks(tmp_path: Path, case: tuple[dict[str, Any], bytes]) -> None:
    """Rows are read and checked, or refused."""
    (task,) = resolve(FinetuneOptions(model="m", output=tmp_path / "o", data=tmp_path, **case[0]))
    check_file(tmp_path / "validation.json", case[1], lambda: read_rows(task, tmp_path, "validation"))


pairs = st.lists(changed({"query": "who", "passage": "the cat"}), max_size=4).map(
    lambda rows: "\n".join(map(as_json, rows))
)


@many
@given(st.one_of(st.tuples(st.just(".jsonl"), damaged(pairs)), st.tuples(st.just(".json"), damaged(nested))))
def test_retrieval_rows(tmp_path: Path, file: tuple[str, bytes]) -> None:
    """Each query has a passage."""
    path = tmp_path / f"pairs{file[0]}"
    found = check_file(path, file[1], lambda: read_retrieval(path))
    assert found is None or all(found.relevant)


beir_texts = damaged(changed({"_id": "1", "text": "the cat", "title": ""}).map(as_json))
judgements = st.lists(cell, max_size=4).map("\t".join).map(lambda row: f"query-id\tcorpus-id\tscore\n1\t1\t1\n{row}\n")


@many
@given(beir_texts, beir_texts, damaged(judgements))
def test_folders_of_beir(tmp_path: Path, corpus: bytes, queries: bytes, qrels: bytes) -> None:
    """Each query has a passage with a grade above 0."""
    (tmp_path / "corpus.jsonl").write_bytes(corpus)
    (tmp_path / "queries.jsonl").write_bytes(queries)
    found = check_file(tmp_path / "qrels.tsv", qrels, lambda: read_retrieval(tmp_path))
    assert found is None or all(grade > 0 for passages in found.relevant for grade in passages.values())


BERT = json.loads(BertConfig(num_hidden_layers=1, architectures=["BertModel"]).to_json_string())


@many
@given(damaged(changed(BERT).map(as_json)))
def test_configs(tmp_path: Path, data: bytes) -> None:
    """A config is one of an encoder."""
    check_file(tmp_path / "config.json", data, lambda: checkpoint.open_config(str(tmp_path)))


INDEX = {"metadata": {"total_size": 4}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}


@many
@given(damaged(changed(INDEX).map(as_json)))
def test_indexes(tmp_path: Path, data: bytes) -> None:
    """Parts that an index names are read from the same folder, or it is refused."""
    check_file(tmp_path / "model.safetensors.index.json", data, lambda: read_tensors(str(tmp_path)))


HEADER = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}


def safetensors(header: str) -> bytes:
    """Write a header as the beginning of a file with eight bytes of weights."""
    text = header.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + bytes(8)


@many
@given(damaged(changed(HEADER).map(as_json)).map(lambda data: safetensors(data.decode("utf-8", "replace"))))
def test_weights(tmp_path: Path, data: bytes) -> None:
    """Tensors are read, or the file is refused."""
    check_file(tmp_path / "model.safetensors", data, lambda: read_tensors(str(tmp_path)))


MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
POOLING = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@many
@given(
    st.lists(changed(MODULES[1]), max_size=2).map(lambda more: as_json([MODULES[0], *more])),
    damaged(changed(POOLING).map(as_json)),
)
def test_layouts_of_sentence_encoders(tmp_path: Path, modules: str, pooling: bytes) -> None:
    """Modules and pooling are read, or refused."""
    (tmp_path / "1_Pooling").mkdir(exist_ok=True)
    (tmp_path / "1_Pooling/config.json").write_bytes(pooling)
    check_file(tmp_path / "modules.json", modules.encode("utf-8", "surrogatepass"), lambda: read_layout(str(tmp_path)))


@many
@given(damaged(changed({"export_format": "onnx", "components": {"model": {"file": "model.onnx"}}}).map(as_json)))
def test_manifests_of_exports(tmp_path: Path, data: bytes) -> None:
    """The format is a text."""
    found = check_file(tmp_path / "export.json", data, lambda: format_of(str(tmp_path)))
    assert isinstance(found, (str, type(None)))


SECTIONS = (
    "model",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
    "added_tokens",
    "truncation",
    "padding",
)
sections = st.tuples(st.sampled_from(SECTIONS), odd_text, odd_value, st.booleans())


@many
@given(sections, st.integers(0, 10**6))
def test_tokenizers(tmp_path: Path, teacher: Path, change: tuple[str, str, Any, bool], place: int) -> None:
    """A tokenizer is read with the tokens that are needed, or refused."""
    document = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))
    section, key, value, whole = change
    part = document.get(section)
    if whole or not isinstance(part, dict):
        document[section] = value
    else:
        part[sorted(part)[place % len(part)] if place % 2 else key] = value
    (tmp_path / "tokenizer_config.json").write_bytes((teacher / "tokenizer_config.json").read_bytes())
    data = as_json(document).encode()
    check_file(tmp_path / "tokenizer.json", data, lambda: checkpoint.open_tokenizer(str(tmp_path), None))
