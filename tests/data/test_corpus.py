import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distilkit.data import corpus
from distilkit.data.blocks import make_packer, pack_documents
from distilkit.data.masking import make_collate, mask_tokens
from distilkit.errors import DistilkitError

TEXTS = ["the first document", "a second one", "and the third"]


def write(path: Path) -> Path:
    """Write TEXTS in the format that the file's name says."""
    content = "".join(text + "\n" for text in TEXTS)
    if ".jsonl" in path.name:
        content = "".join(json.dumps({"text": text, "other": 1}) + "\n" for text in TEXTS)
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table({"text": TEXTS}), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_reads_every_format(tmp_path: Path, name: str) -> None:
    """The same documents come out of every file type, plain and gzipped."""
    assert corpus.read_documents(str(write(tmp_path / name)))["text"][:] == TEXTS


def test_blank_lines_separate_documents(tmp_path: Path) -> None:
    """A text with blank lines holds a document between two of them, with its line breaks."""
    (tmp_path / "a.txt").write_text("one\nstill one\n\ntwo\n\n", encoding="utf-8")

    assert [text.strip() for text in corpus.read_documents(str(tmp_path / "a.txt"))["text"]] == [
        "one\nstill one",
        "two",
    ]


def test_a_folder_is_read_in_name_order(tmp_path: Path) -> None:
    """Files of a folder, also of its folders, follow each other by name."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("two\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one\n", encoding="utf-8")

    assert corpus.read_documents(str(tmp_path))["text"][:] == ["one", "two"]


@pytest.mark.parametrize("read", [corpus.read_documents, corpus.stream_documents])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "a.txt"),
        ("a.txt", b"\n\n  \n", "a.txt"),
        ("a.txt", "caf\u00e9 au lait\n".encode("latin-1"), "a.txt.*UTF-8"),
        ("a.jsonl", b'{"body": "x"}\n', "a.jsonl.*'text'.*body"),
        ("a.doc", b"x", "a.doc.*.txt"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl.*'text'"),
    ],
)
def test_unusable_text_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, words: str, read: Callable[[str], object]
) -> None:
    """Empty, undecodable and unlabelled text each end in one line that says so."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilkitError, match=words) as caught:
        read(str(tmp_path / name))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["./nowhere.txt", "nowhere.txt", "some/hub-data"])
def test_absent_text_is_refused_in_one_line(source: str) -> None:
    """A path that isn't there and a hub id out of reach are told apart from a bug."""
    with pytest.raises(DistilkitError) as caught:
        corpus.read_documents(source)

    assert "\n" not in str(caught.value)


def test_pack_loses_and_adds_nothing(corpus: Path, prose: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    """Blocks are CLS … SEP of one length and hold the documents' tokens in order, SEP between them."""
    from distilkit.data import corpus as module

    blocks = pack_documents(module.read_documents(str(corpus)), tokenizer, 32).with_format("numpy")["input_ids"][:]
    stream = [token for text in prose for token in (*tokenizer(text, add_special_tokens=False)["input_ids"], 3)]

    assert blocks.shape == (len(stream) // 30, 32)
    assert (blocks[:, 0] == 2).all()
    assert (blocks[:, -1] == 3).all()
    assert blocks[:, 1:-1].flatten().tolist() == stream[: blocks.shape[0] * 30]


def test_text_shorter_than_a_block_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The line names the length and the flag."""
    path = write(tmp_path / "a.txt")
    with pytest.raises(DistilkitError, match="--seq-length"):
        pack_documents(corpus.read_documents(str(path)), tokenizer, 96)


def generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + row) for row in range(count)]


def test_masking_is_80_10_10_of_exactly_15_percent(tokenizer: PreTrainedTokenizerFast) -> None:
    """Counted over 200,000 tokens: the share of targets is exact, the three fates within 4 standard deviations."""
    ids = torch.randint(5, 400, (1000, 200), generator=torch.Generator().manual_seed(3))
    ids[:, 0], ids[:, -1] = 2, 3
    corrupted, labels = mask_tokens(ids, tokenizer, 0.15, generators(1000, seed=4))
    targets = labels != -100
    count = int(targets.sum())

    assert count == 30_000
    assert not targets[:, 0].any()
    assert not targets[:, -1].any()
    assert torch.equal(labels[targets], ids[targets])
    assert torch.equal(corrupted[~targets], ids[~targets])
    masked, kept = (corrupted[targets] == 4).sum().item(), (corrupted[targets] == ids[targets]).sum().item()
    assert masked == pytest.approx(0.8 * count, abs=4 * (0.8 * 0.2 * count) ** 0.5)
    assert kept == pytest.approx(0.1 * count, abs=4 * (0.1 * 0.9 * count) ** 0.5 + 0.1 * count / 400)
    assert (targets.sum(1) == 30).all()
    assert targets.sum(0)[1:-1].float().std().item() < 1.2 * (1000 * 30 / 198) ** 0.5  # evenly over the places


def test_masks_belong_to_the_row(tokenizer: PreTrainedTokenizerFast) -> None:
    """The same seeds mask alike, others differently, whatever the batch and its padding; pads are never masked."""
    ids = torch.randint(5, 400, (4, 50), generator=torch.Generator().manual_seed(0))
    ids[:, 25:] = 0
    first, again, other = (mask_tokens(ids, tokenizer, 0.2, generators(4, seed=seed)) for seed in (1, 1, 2))
    alone = mask_tokens(ids[2:3, :25], tokenizer, 0.2, generators(4, seed=1)[2:3])

    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(first[0][2:3, :25], alone[0])
    assert torch.equal(first[1][2:3, :25], alone[1])
    assert (first[1] != -100).sum(1).tolist() == [5, 5, 5, 5]
    assert (first[0][:, 25:] == 0).all()


def test_rows_of_one_length_have_no_attention_mask(tokenizer: PreTrainedTokenizerFast) -> None:
    """Nothing is padded, so there is nothing to say, whether rows are lists or arrays."""
    collate = make_collate(tokenizer, 0.15)
    rows = [{"input_ids": [2, 10 + n, 20 + n, 3]} for n in range(3)]
    batch = collate(rows, generators(3, 0))

    assert batch.keys() == {"input_ids", "labels"}
    assert batch["input_ids"].shape == (3, 4)


def test_rows_are_padded_to_the_longest_of_their_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    """By hand: the mask covers each row's tokens; PAD, CLS and SEP never become targets, all others may."""
    rows = [{"input_ids": np.array([2, *range(10, 10 + n), 3], dtype=np.uint16)} for n in (4, 1, 7)]
    targets = torch.zeros(3, 9)
    for seed in range(200):
        batch = make_collate(tokenizer, 0.3)(rows, generators(3, seed))
        assert batch["attention_mask"].tolist() == [[1] * 6 + [0] * 3, [1] * 3 + [0] * 6, [1] * 9]
        assert (batch["labels"] != -100).sum(1).tolist() == [2, 1, 3]  # 0.3 of 6, 3 and 9 tokens, rounded up
        assert all(batch["input_ids"][i, n + 2 :].eq(0).all() for i, n in enumerate((4, 1, 7)))
        targets += batch["labels"] != -100

    body = torch.tensor([[0, *[1] * n, 0, *[0] * (7 - n)] for n in (4, 1, 7)])
    assert torch.equal(targets > 0, body > 0)


def test_a_document_a_row_needs_a_pad_token(tokenizer: PreTrainedTokenizerFast) -> None:
    """Without one the line names the flag."""
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    with pytest.raises(DistilkitError, match="--packing blocks"):
        make_packer(bare, 32, "documents")


def test_files_read_once_are_packed_alike(corpus: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> None:
    """Read where they lie, files give the rows of datasets' copy; another content has another fingerprint."""
    from distilkit.data import corpus as module

    documents, fingerprint = module.read_once(str(corpus))
    packed = pack_documents(documents, tokenizer, 32, fingerprint=fingerprint)

    assert packed[:] == pack_documents(module.read_documents(str(corpus)), tokenizer, 32)[:]
    assert module.read_once(str(corpus))[1] == fingerprint
    other = cache / "other.txt"
    other.write_text(corpus.read_text("utf-8") + "one more\n", encoding="utf-8")
    assert module.read_once(str(other))[1] != fingerprint
