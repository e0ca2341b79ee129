"""Stream a text: compared with reading it at once, and with itself after an interruption."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from distilkit.commands.distill import distill
from distilkit.data import corpus as corpora
from distilkit.data import masking, packing, streaming
from distilkit.data.blocks import make_packer, pack_documents
from distilkit.data.masking import make_collate
from distilkit.data.packing import Encoder, Packer
from distilkit.data.streaming import RowStream, StreamedBatches, split_stream
from distilkit.distillation.heldout import HeldoutEvaluator
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.training import TrainOptions
from distilkit.training.loop import load
from distilkit.training.objective import Objective

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small groups of documents and small buffers, so that the test text fills many of each."""
    monkeypatch.setattr(packing, "PART_CHARACTERS", 500)
    monkeypatch.setattr(streaming, "BUFFER_ROWS", 40)


@pytest.fixture(params=["one file", "many files", "gzipped jsonl"])
def source(request: pytest.FixtureRequest, corpus: Path, prose: list[str], tmp_path: Path) -> str:
    """The same documents in one file, in several files, and in another format."""
    if request.param == "one file":
        return str(corpus)
    if request.param == "many files":
        (tmp_path / "text").mkdir()
        for start in range(0, len(prose), 37):
            lines = "\n".join(prose[start : start + 37])
            (tmp_path / f"text/{start:03}.txt").write_text(lines + "\n", encoding="utf-8")
        return str(tmp_path / "text")
    import gzip

    lines = "".join(json.dumps({"text": text}) + "\n" for text in prose)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return str(tmp_path / "a.jsonl.gz")


@pytest.fixture
def packer(tokenizer: PreTrainedTokenizerFast) -> Packer:
    return make_packer(tokenizer, 32, "blocks")


def lists(rows: Any) -> list[list[int]]:
    return [row.tolist() for row in rows]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the number of texts of every group that is tokenised in this process."""
    counts: list[int] = []
    call = Encoder.__call__
    monkeypatch.setattr(Encoder, "__call__", lambda self, texts: counts.append(len(texts)) or call(self, texts))
    return counts


@pytest.mark.parametrize("layout", ["blocks", "documents"])
def test_a_stream_gives_the_rows_of_a_plain_reading(
    source: str, tokenizer: PreTrainedTokenizerFast, layout: str
) -> None:
    """Every pass over the text yields the rows of the packed data set, in order."""
    plain = pack_documents(corpora.read_documents(source), tokenizer, 32, packing=layout)["input_ids"][:]
    read = RowStream(source, make_packer(tokenizer, 32, layout)).read(0, 2 * len(plain) + 3)

    assert lists(read) == plain + plain + plain[:3]


def test_rows_are_a_function_of_their_number(source: str, packer: Packer) -> None:
    """Read in pieces, with gaps, or backwards: row n is the same."""
    rows = lists(RowStream(source, packer).read(0, 400))
    pieces = RowStream(source, packer)

    for start, count in ((0, 7), (7, 100), (107, 1), (150, 30), (399, 1), (20, 5), (2, 200)):
        assert lists(pieces.read(start, count)) == rows[start : start + count], start


@pytest.mark.parametrize("start", [1, 64, 170, 333])
def test_reading_goes_on_from_a_place(source: str, packer: Packer, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new stream that starts from the stored position yields the same rows without tokenising the text before it."""
    first = RowStream(source, packer)
    before = first.read(start, 20)
    expected = lists(first.read(start + 20, 150))
    again = RowStream(source, packer)
    reader = RowStream(source, packer)
    reader.read(start, 20)
    again.position = json.loads(json.dumps(reader.position))  # as a checkpoint would hand it on
    counts = counted(monkeypatch)
    rows = lists(again.read(start, 170))
    tokenised = sum(counts)
    counts.clear()
    RowStream(source, packer).read(start, 170)

    assert rows == lists(before) + expected
    assert tokenised < sum(counts) or start < 20


def streamed(
    source: str, tokenizer: PreTrainedTokenizerFast, layout: str = "blocks", length: int = 32
) -> StreamedBatches:
    rows = RowStream(source, make_packer(tokenizer, length, layout))
    return StreamedBatches(rows, make_collate(tokenizer, 0.15), batch_size=8, seed=5)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("layout", ["blocks", "documents"])
def test_batches_are_the_same_after_an_interruption(
    corpus: Path, tokenizer: PreTrainedTokenizerFast, layout: str
) -> None:
    """Batch n is the same after reading all rows before it, after skipping them, and from a stored position."""
    whole = streamed(str(corpus), tokenizer, layout)
    batches = [whole[number] for number in range(30)]
    for known in (True, False):
        stopped, resumed = streamed(str(corpus), tokenizer, layout), streamed(str(corpus), tokenizer, layout)
        for number in range(18):
            stopped[number]
        if known:
            resumed.load_state_dict(stopped.state_dict())
        assert all(same(resumed[number], batches[number]) for number in range(18, 30))


def test_a_buffer_is_shuffled_and_given_once(
    corpus: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five batches of 8 have the stream's first 40 rows, each once, in another order than the next five batches."""
    monkeypatch.setattr(masking, "mask_tokens", lambda ids, *_: (ids, ids))
    batches = streamed(str(corpus), tokenizer)
    rows = lists(RowStream(str(corpus), batches.stream.packer).read(0, 80))
    first, second = ([row for n in range(k, k + 5) for row in batches[n]["input_ids"].tolist()] for k in (0, 5))

    assert sorted(first) == sorted(rows[:40])
    assert sorted(second) == sorted(rows[40:])
    assert first != rows[:40]
    assert [rows.index(row) for row in first] != [rows[40:].index(row) for row in second]


def test_rows_of_like_length_share_a_batch(corpus: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """With --packing documents there is less padding than in text order, and the masks cover all tokens."""
    batches = streamed(str(corpus), tokenizer, "documents", 96)
    rows = RowStream(str(corpus), batches.stream.packer).read(0, 40)
    seen = [batches[number] for number in range(5)]
    padded = sum(batch["input_ids"].numel() for batch in seen)
    in_order = sum(8 * max(len(row) for row in rows[k : k + 8]) for k in range(0, 40, 8))
    masks = [batch.get("attention_mask", torch.ones_like(batch["input_ids"])) for batch in seen]

    assert padded < in_order
    assert sum(int(mask.sum()) for mask in masks) == sum(map(len, rows))


def test_two_processes_share_a_stream(corpus: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Each process takes every other micro-batch of a single-process run, also after a resume."""
    config = TrainOptions(accumulate=2)

    def taken(rank: int, world: int, steps: range) -> list[dict[str, torch.Tensor]]:
        accelerator: Any = SimpleNamespace(num_processes=world, process_index=rank, device=torch.device("cpu"))
        still = Objective(nn.Identity())
        return list(load(still, streamed(str(corpus), tokenizer), steps, config, accelerator))

    alone = taken(0, 1, range(6, 14))
    first, second = taken(0, 2, range(3, 7)), taken(1, 2, range(3, 7))

    assert len(first) == len(second) == 8
    assert all(same(batch, alone[number]) for number, batch in zip(range(0, 16, 2), first, strict=True))
    assert all(same(batch, alone[number]) for number, batch in zip(range(1, 16, 2), second, strict=True))


def test_heldout_rows_are_never_trained_on(source: str, tokenizer: PreTrainedTokenizerFast, packer: Packer) -> None:
    """The first rows are held out. Training starts after them, in the second pass over the text too."""
    plain = pack_documents(corpora.read_documents(source), tokenizer, 32)["input_ids"][:]
    training, heldout = split_stream(source, packer, 9)

    assert lists(row["input_ids"] for row in heldout) == plain[:9]
    assert lists(training.read(0, 2 * len(plain))) == (plain[9:] * 3)[: 2 * len(plain)]


def test_a_text_too_short_to_set_aside_is_refused(corpus: Path, packer: Packer) -> None:
    """The error names --heldout and --streaming."""
    with pytest.raises(DistilkitError, match=r"--heldout.*--streaming"):
        split_stream(str(corpus), packer, 10_000)
    with pytest.raises(DistilkitError, match="--streaming"):
        RowStream(str(corpus), packer, skipped_rows=10_000).read(0, 1)


def test_text_that_turns_bad_is_one_line(
    tmp_path: Path, packer: Packer, prose: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invalid UTF-8 in a later file, which is not read at the start, ends in one line."""
    monkeypatch.setattr(packing, "PART_CHARACTERS", 2**20)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/1.txt").write_text("\n".join(prose * 35) + "\n", encoding="utf-8")
    (tmp_path / "text/2.txt").write_bytes(b"caf\xe9 au lait\n")
    rows = RowStream(str(tmp_path / "text"), packer)

    with pytest.raises(DistilkitError, match="not UTF-8"):
        rows.read(0, 10**6)


@pytest.fixture
def config(teacher: Path, make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path) -> DistillOptions:
    return DistillOptions(
        student=str(make_checkpoint("bert", 2)),
        teacher=str(teacher),
        corpus=str(corpus),
        heldout=str(corpus),
        output=tmp_path / "out",
        seq_length=32,
        batch_size=4,
        steps=25,
        checkpoint_every=3,
        evaluate_every=1,
        streaming=True,
    )


@pytest.mark.parametrize("layout", ["blocks", "documents"])
def test_a_resumed_run_ends_with_the_same_bits(
    config: DistillOptions, monkeypatch: pytest.MonkeyPatch, layout: Any, tmp_path: Path
) -> None:
    """A run interrupted in the second buffer and resumed from its checkpoint ends with the same weights."""
    config = replace(config, packing=layout)
    distill(replace(config, output=tmp_path / "whole"))
    calls = []

    def broken(*_: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) > 17:
            raise ZeroDivisionError
        return {"heldout_loss": 1.0}

    with monkeypatch.context() as patch:
        patch.setattr(HeldoutEvaluator, "evaluate", broken)
        with pytest.raises(ZeroDivisionError):
            distill(config)
    distill(replace(config, resume=True))
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))

    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_stream_needs_steps(config: DistillOptions) -> None:
    """The length of a stream is unknown, so --streaming without --steps is refused before anything is written."""
    with pytest.raises(DistilkitError, match="--streaming"):
        distill(replace(config, steps=None))

    assert not config.output.exists()
