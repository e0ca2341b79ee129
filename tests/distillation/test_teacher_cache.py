"""Cached predictions against those of the teacher itself."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from distilkit.commands import distill_inputs
from distilkit.commands.distill import distill
from distilkit.commands.init import init
from distilkit.data import corpus as corpora
from distilkit.data.blocks import pack_documents
from distilkit.distillation.cache_manifest import describe
from distilkit.distillation.teacher_cache import CachedBatches, TeacherCache
from distilkit.distillation.text_objective import CachedDistillation, Distillation
from distilkit.encoders.layers import extract
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.init import InitOptions
from distilkit.record import remembered_teacher

WEIGHTS = {"ce": 5.0, "mlm": 2.0}


@pytest.fixture
def corpus(corpus: Path, tmp_path: Path) -> Path:
    """A sixth of the corpus, so that the teacher is fast."""
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "corpus.txt"
    path.write_text("".join(lines[: len(lines) // 6]), encoding="utf-8")
    return path


@pytest.fixture
def config(teacher: Path, corpus: Path, tmp_path: Path) -> DistillOptions:
    """A few updates of the teacher's two-layer student."""
    init(InitOptions(teacher=str(teacher), output=tmp_path / "student"))
    return DistillOptions(
        student=str(tmp_path / "student"),
        corpus=str(corpus),
        output=tmp_path / "out",
        seq_length=32,
        batch_size=8,
        steps=6,
        ce_positions="masked",
        alpha_cos=0.0,
        teacher_cache=tmp_path / "cache",
    )


@pytest.fixture
def blocks(corpus: Path, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The corpus in blocks of 32 tokens."""
    return pack_documents(corpora.read_documents(str(corpus)), tokenizer, 32)


@pytest.fixture
def opened(teacher: Path) -> PreTrainedModel:
    """The teacher as transformers opens it."""
    model: PreTrainedModel = AutoModelForMaskedLM.from_pretrained(teacher)
    return model.eval()


@pytest.fixture
def make_cache(
    config: DistillOptions, blocks: Any, tokenizer: PreTrainedTokenizerFast, teacher: Path, opened: PreTrainedModel
) -> Callable[..., TeacherCache]:
    """Return a function that makes a cache of several parts, filled unless `fill` is False."""

    def make(fill: bool = True, **changes: Any) -> TeacherCache:
        changed = replace(config, **changes)
        assert changed.teacher_cache is not None
        wanted = describe(changed, str(teacher), tokenizer, 400, blocks)
        cache = TeacherCache(changed.teacher_cache, blocks, tokenizer, wanted, part_blocks=40)
        if fill:
            cache.fill(cache.missing(), opened, 8)
        return cache

    return make


def batch_of(cache: TeacherCache, chosen: list[int]) -> dict[str, Tensor]:
    return cache.collate([cache[block] for block in chosen])


def full(student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the losses with the teacher itself."""
    inputs = {name: batch[name] for name in ("input_ids", "labels")}
    return Distillation(student, teacher, {"ce": 1.0}, temperature=0.05, ce_positions="masked")(inputs)


def test_many_samples_give_the_full_loss(make_cache: Callable[..., TeacherCache], opened: PreTrainedModel) -> None:
    """With 20,000 samples per token, losses and gradients are close to those with the teacher itself."""
    cache = make_cache(cache_size=20_000, temperature=0.05)
    student = extract(opened, [0, 3])
    batch = batch_of(cache, [5, 0, 41])
    expected = full(student, opened, batch)
    found = CachedDistillation(student, {"ce": 1.0}, temperature=0.05, teacher_until=1.0)(batch)
    weights = [weight for name, weight in student.named_parameters() if name.startswith("bert.encoder")]
    ours, theirs = (
        torch.cat([part.flatten() for part in torch.autograd.grad(parts["loss"], weights)])
        for parts in (found, expected)
    )

    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=5e-2), name
    assert (ours - theirs).norm() < 0.1 * theirs.norm()


def test_samples_follow_the_teacher(make_cache: Callable[..., TeacherCache], opened: PreTrainedModel) -> None:
    """Of 5,000 samples, each token's share is its probability, within five standard deviations."""
    row = make_cache(cache_size=5_000)[3]
    with torch.no_grad():
        logits = opened(row["input_ids"][None]).logits[0][row["labels"] != -100]
    p = torch.softmax(logits / 2, -1)
    counts = torch.zeros_like(p).scatter_add_(1, row["teacher_ids"], torch.ones(row["teacher_ids"].shape))

    assert ((counts / 5_000 - p).abs() < 5 * (p / 5_000).sqrt() + 1e-4).all()
    entropy = torch.distributions.Categorical(probs=p).entropy()
    torch.testing.assert_close(row["teacher_values"][:, 0], entropy, rtol=1e-3, atol=0)


def test_masks_are_a_function_of_the_block(make_cache: Callable[..., TeacherCache]) -> None:
    """Whatever the epoch, batch size and --seed, a block has the same mask and its own predictions."""
    cache = make_cache(cache_size=4)
    seen: dict[tuple[int, ...], set[str]] = {}  # the masks and predictions of each block; a text may repeat a block
    for size, seed in ((8, 0), (3, 1)):
        batches = CachedBatches(cache, batch_size=size, seed=seed)
        for number in range(2 * batches.per_epoch):
            batch = batches[number]
            counts = (batch["labels"] != -100).sum(1).tolist()
            predictions = batch["teacher_ids"].split(counts)
            for ids, labels, samples in zip(batch["input_ids"], batch["labels"], predictions, strict=True):
                original = tuple(torch.where(labels == -100, ids, labels).tolist())
                seen.setdefault(original, set()).add(f"{ids.tolist()} {samples.tolist()}")
    assert sum(map(len, seen.values())) == len(cache)


def test_maskings_take_turns(make_cache: Callable[..., TeacherCache], opened: PreTrainedModel) -> None:
    """Two maskings alternate from epoch to epoch, each with its own predictions."""
    cache = make_cache(cache_size=5_000, cache_maskings=2, temperature=0.05)
    batches = CachedBatches(cache, batch_size=len(cache), seed=0)
    epochs = [{tuple(row) for row in batches[epoch]["input_ids"].tolist()} for epoch in range(4)]

    assert epochs[0] == epochs[2] != epochs[1] == epochs[3]
    batches[1]
    student, batch = extract(opened, [0, 3]), batch_of(cache, [7])
    found = CachedDistillation(student, {"ce": 1.0}, temperature=0.05, teacher_until=1.0)(batch)
    assert found["ce"].item() == pytest.approx(full(student, opened, batch)["ce"].item(), rel=5e-2)


def test_an_interrupted_fill_continues(
    make_cache: Callable[..., TeacherCache], opened: PreTrainedModel, tmp_path: Path
) -> None:
    """Complete parts are kept, an incomplete one leaves no file, and the predictions are the same in the end."""
    whole = [make_cache(cache_size=4)[block]["teacher_values"] for block in (1, 45, 90)]
    elsewhere = make_cache(fill=False, cache_size=4, teacher_cache=tmp_path / "elsewhere")
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:  # five batches of eight are one part
            raise KeyboardInterrupt

    hook = opened.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        elsewhere.fill(elsewhere.missing(), opened, 8)
    hook.remove()
    assert sorted(path.name for path in elsewhere.directory.iterdir()) == ["manifest.json", "part-000000.npy"]

    before = (elsewhere.directory / "part-000000.npy").stat().st_mtime_ns
    again = make_cache(cache_size=4, teacher_cache=elsewhere.directory)
    assert (elsewhere.directory / "part-000000.npy").stat().st_mtime_ns == before
    for block, values in zip((1, 45, 90), whole, strict=True):
        torch.testing.assert_close(again[block]["teacher_values"], values)


def test_a_complete_cache_needs_no_teacher(config: DistillOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with another seed and batch size uses the same predictions and still reports heldout_agreement."""
    first = distill(config)
    monkeypatch.setattr(distill_inputs, "open_teacher", lambda *_: pytest.fail("the teacher was opened"))
    second = distill(replace(config, output=config.output.with_name("second"), seed=7, batch_size=4))

    assert 0 <= second.metrics["heldout_agreement"] <= 1
    starts = [
        json.loads((entry / "train.jsonl").read_text().splitlines()[0])
        for entry in (config.output, config.output.with_name("second"))
    ]
    assert starts[0] == starts[1]  # the same held-out text, masks and predictions
    assert first.metrics["cache/fill_seconds"] == second.metrics["cache/fill_seconds"] > 0
    assert first.metrics["cache/break_even_epoch"] > 0.5
    # For 5 of 32 tokens: 64 ids of two bytes and one half-precision number. A file also has a header.
    assert config.teacher_cache is not None
    tokens = json.loads((config.teacher_cache / "manifest.json").read_text())["tokens"]
    headers = 256 * len(list(config.teacher_cache.glob("part-*")))
    assert first.metrics["cache/bytes_per_token"] == pytest.approx(5 * (64 * 2 + 2) / 32, abs=headers / tokens)


def test_a_student_learns_from_a_cache(config: DistillOptions, make_checkpoint: Callable[..., Path]) -> None:
    """With 16 samples from 400 tokens, `ce` of a student with other weights falls by a fifth."""
    student = str(make_checkpoint("bert", 2, seed=5))
    teacher = remembered_teacher(config.student)
    changes = {"cache_size": 16, "steps": 40, "lr": 2e-3, "alpha_mlm": 0.0, "temperature": 0.2}
    distill(replace(config, student=student, teacher=teacher, **changes))  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (config.output / "train.jsonl").read_text().splitlines()]
    ce = [line["ce"] for line in lines if "loss" in line]

    assert sum(ce[-5:]) < 0.8 * sum(ce[:5])


def test_only_masked_lm_remains_after_teacher_until(
    make_cache: Callable[..., TeacherCache], opened: PreTrainedModel
) -> None:
    """With teacher_until=0.5, the second half of a run does not use the predictions."""
    batch = batch_of(make_cache(cache_size=4), [0, 1])
    objective = CachedDistillation(extract(opened, [0, 3]), WEIGHTS, temperature=2.0, teacher_until=0.5)
    objective.progress(0.49)
    assert objective(batch).keys() == {"loss", "ce", "mlm"}
    objective.progress(0.5)
    parts = objective(batch)

    assert parts.keys() == {"loss", "mlm"}
    assert parts["loss"].item() == pytest.approx(2 * parts["mlm"].item())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha_cos": None}, "--teacher-cache .* --alpha-cos 0"),
        ({"alpha_hidden": 1.0}, "--teacher-cache .* --alpha-hidden 0"),
        ({"ce_positions": "all"}, "--ce-positions masked"),
        ({"objective": "mlm", "alpha_cos": None}, "--alpha-ce.*--teacher-cache"),
    ],
)
def test_what_a_cache_cannot_do_is_refused(config: DistillOptions, changes: dict[str, Any], words: str) -> None:
    """A loss term that needs more than predictions at masked tokens is named with its flag; nothing is written."""
    with pytest.raises(DistilkitError, match=words):
        distill(replace(config, **changes))
    with pytest.raises(DistilkitError, match=r"--teacher-cache.* -o"):
        distill(replace(config, teacher_cache=config.output / "cache"))

    assert not config.output.exists()
    assert not config.teacher_cache.exists()  # type: ignore[union-attr]


def test_a_foreign_cache_is_refused(
    config: DistillOptions, make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    """Another teacher, text, temperature or size is named in one line, and the cache does not change."""
    distill(config)
    kept = {path.name: path.read_bytes() for path in config.teacher_cache.iterdir()}  # type: ignore[union-attr]
    other = tmp_path / "other.txt"
    other.write_text("".join(corpus.read_text().splitlines(keepends=True)[1:]))
    for changes, words in (
        ({"teacher": str(make_checkpoint("bert", 4, seed=9))}, "another teacher: .*--teacher-cache"),
        ({"corpus": str(other)}, "--corpus"),
        ({"heldout": str(other)}, "--heldout"),
        ({"temperature": 1.0}, "--temperature 2.0, not 1.0"),
        ({"cache_size": 8}, "--cache-size 64, not 8"),
        ({"mask_probability": 0.3}, "--mask-probability 0.15, not 0.3"),
        ({"seq_length": 16}, "--seq-length 32, not 16"),
    ):
        with pytest.raises(DistilkitError, match=words):
            distill(replace(config, output=tmp_path / "refused", **changes))
    assert not (tmp_path / "refused").exists()
    assert {path.name: path.read_bytes() for path in config.teacher_cache.iterdir()} == kept  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["sampled", "topk"])
def test_a_cache_of_an_older_version(make_cache: Callable[..., TeacherCache], kind: str) -> None:
    """A cache of sampled tokens is used, a cache of top-k tokens is refused in one line."""
    about = make_cache().directory / "manifest.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"cache_logits": kind}))
    if kind == "sampled":
        assert make_cache(fill=False).missing() == []
    else:
        with pytest.raises(DistilkitError, match=r"cache'.*--cache-logits topk.*--teacher-cache"):
            make_cache()


def test_a_directory_in_use_or_damaged_is_refused(
    config: DistillOptions, make_cache: Callable[..., TeacherCache]
) -> None:
    """A directory with other files is refused; a truncated part and an unreadable manifest are named."""
    directory = config.teacher_cache
    assert directory is not None
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(DistilkitError, match=r"other files.*--teacher-cache"):
        distill(config)
    (directory / "notes.txt").unlink()

    make_cache()
    part = directory / "part-000001.npy"
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(DistilkitError, match=r"part-000001.npy' is damaged"):
        make_cache()[41]
    part.write_bytes(b"")
    with pytest.raises(DistilkitError, match=r"part-000001.npy' is damaged"):
        make_cache()[41]
    (directory / "manifest.json").write_text("{")
    with pytest.raises(DistilkitError, match=r"manifest.json.*--teacher-cache"):
        make_cache()


def test_rows_of_different_lengths_are_padded(
    make_cache: Callable[..., TeacherCache], tokenizer: PreTrainedTokenizerFast, blocks: Any
) -> None:
    """Shorter rows get padding that is neither attended to nor predicted."""
    cache = make_cache(fill=False)
    rows = [cache.mask(0), {name: ids[:20] for name, ids in cache.mask(1).items()}]
    batch = cache.collate(rows)

    assert batch["attention_mask"].sum(1).tolist() == [32, 20]
    assert batch["input_ids"][1, 20:].tolist() == [tokenizer.pad_token_id] * 12
    assert batch["labels"][1, 20:].tolist() == [-100] * 12
    assert "attention_mask" not in cache.collate(rows[:1])


def test_ids_take_the_smallest_integers(make_cache: Callable[..., TeacherCache]) -> None:
    """Ids below 400 are stored in two bytes."""
    part = np.load(next(make_cache().directory.glob("part-*.npy")))

    assert part.dtype["ids"].base == np.uint16


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no directories")
def test_a_place_that_takes_no_directory_is_named(config: DistillOptions) -> None:
    """One line with the flag, not a traceback."""
    with pytest.raises(DistilkitError, match=r"cannot write --teacher-cache '/proc/nowhere'"):
        distill(replace(config, teacher_cache=Path("/proc/nowhere")))
