"""Jobs: your own data of every kind, long texts, and teachers of another family, width or tokenizer."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    XmodConfig,
)

from distilkit.commands.evaluate import evaluate
from distilkit.commands.finetune import finetune, settle
from distilkit.commands.finetune_inputs import prepare
from distilkit.errors import DistilkitError
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.tasks.catalogue import resolve

CLASSIFIER = AutoModelForSequenceClassification
WORDS = ("return the value", "raise an error if", "see the module")


STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as the file's ending says; returns the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path.parent


def samples(prose: list[str], label: Callable[[int], dict[str, Any]], text: str = "text") -> list[dict[str, Any]]:
    """Rows whose first words say which of three sorts they are."""
    return [{text: f"{WORDS[n % 3]} {prose[n][:20]}", **label(n % 3)} for n in range(36)]


@pytest.fixture
def config(make_checkpoint: Callable[..., Path], tmp_path: Path) -> FinetuneOptions:
    """Updates enough to learn an easy custom task, whatever random numbers dropout would get on this machine."""
    return FinetuneOptions(
        model=str(make_checkpoint("bert", 4, **STILL)),
        task="custom",
        data=tmp_path / "data",
        text=("text",),
        label="label",
        output=tmp_path / "out",
        steps=60,
        seed=44,
        batch_size=12,
        lr=3e-3,
        max_length=32,
        keep="last",
    )


def scored(config: FinetuneOptions) -> dict[str, float]:
    """Score an output as somebody would who only knows its rows."""
    given = {name: getattr(config, name) for name in ("task", "data", "text", "label")}
    return evaluate(EvalOptions(models=(str(config.output),), **given)).metrics


CUSTOM: dict[str, tuple[str, str, Callable[[int], dict[str, Any]], str, dict[int, str]]] = {
    "names": ("jsonl", "label", lambda n: {"label": ("c", "b", "a")[n]}, "accuracy", {0: "a", 1: "b", 2: "c"}),
    "numbers": ("tsv", "label", lambda n: {"label": 3 - n}, "accuracy", {0: "1", 1: "2", 2: "3"}),
    "lists": ("jsonl", "label", lambda n: {"label": [[], ["a"], ["a", "b"]][n]}, "f1_micro", {0: "a", 1: "b"}),
    "columns": ("csv", "b,a", lambda n: {"a": int(n > 0), "b": int(n > 1)}, "f1_micro", {0: "b", 1: "a"}),
    "floats": ("csv", "label", lambda n: {"label": n - 0.5}, "pearson", {0: "LABEL_0"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CUSTOM)
def test_your_own_rows(config: FinetuneOptions, prose: list[str], case: str) -> None:
    """Every kind of label in every kind of file is learnt, named in the model, and scored alike without --kind."""
    ending, label, make, metric, names = CUSTOM[case]
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.{ending}", samples(prose, make))
    ours = replace(config, label=label)
    done = finetune(ours)
    assert done.metrics[f"custom/{metric}"] > 0.95
    found = CLASSIFIER.from_pretrained(config.output).config
    assert found.id2label == names
    assert found.label2id == {name: place for place, name in names.items()}
    again = scored(ours)
    assert again == pytest.approx({name: value for name, value in done.metrics.items() if name in again})


def test_a_pair_of_columns(config: FinetuneOptions, prose: list[str]) -> None:
    """Two --text columns become two segments."""
    rows = [{"a": prose[n][:20], "b": WORDS[n % 2], "label": n % 2} for n in range(24)]
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.tsv", rows)
    assert finetune(replace(config, text=("a", "b"))).metrics["custom/accuracy"] == 1.0


@pytest.mark.parametrize("long", ["head", "head-tail", "windows"])
def test_long_reviews(config: FinetuneOptions, prose: list[str], long: Any) -> None:
    """What a long review ends with is seen by head-tail and windows, not by head, in training as in eval."""
    filler = "the " * 40
    rows = [{"text": filler + WORDS[n % 2], "label": n % 2} for n in range(16)]
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.jsonl", rows)
    imdb = replace(config, task="imdb", text=None, label=None, long=long, max_length=24, batch_size=8)
    done = finetune(imdb)
    assert done.metrics["imdb/accuracy"] == (0.5 if long == "head" else 1.0)
    again = scored(imdb)
    assert again == pytest.approx({name: value for name, value in done.metrics.items() if name in again})


@pytest.fixture(scope="module")
def other_tokenizer(prose: list[str]) -> PreTrainedTokenizerFast:
    """Byte-pair tokens of 350 entries, with other special tokens in other places."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<s>", "</s>", "<unk>", "<pad>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator(prose, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=96, **{f"{name}_token": token for name, token in names.items()}
    )


@pytest.mark.parametrize("case", ["names", "lists", "floats"])
def test_a_teacher_of_another_family_width_and_tokenizer(
    config: FinetuneOptions,
    make_checkpoint: Callable[..., Path],
    other_tokenizer: PreTrainedTokenizerFast,
    prose: list[str],
    case: str,
) -> None:
    """Each model reads the row in tokens of its own: without the labels the student learns what the teacher knows."""
    ending, _, make, metric, _ = CUSTOM[case]
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.{ending}", samples(prose, make))
    wide = make_checkpoint("roberta", 2, hidden_size=48, pad_token_id=3, bos_token_id=0, eos_token_id=1)
    other_tokenizer.save_pretrained(wide)
    expert = replace(config, model=str(wide), output=config.output.with_name("expert"))
    assert finetune(expert).metrics[f"custom/{metric}"] > 0.95
    learner = replace(config, teacher=str(expert.output), alpha_task=0.0, alpha_ce=1.0, steps=80)
    assert finetune(learner).metrics[f"custom/{metric}"] > 0.95


def test_spans_need_the_students_tokenizer(
    config: FinetuneOptions, make_checkpoint: Callable[..., Path], other_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A span lies at other tokens for a teacher with another tokenizer: one line says so before anything is trained."""
    row = {"id": "1", "question": "who?", "context": "Ann left.", "answers": {"text": ["Ann"], "answer_start": [0]}}
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.jsonl", [row])
    stranger = make_checkpoint("bert", 1, AutoModelForQuestionAnswering)
    other_tokenizer.save_pretrained(stranger)
    squad = replace(config, task="squad", text=None, label=None, teacher=str(stranger), max_length=64, stride=16)
    with pytest.raises(DistilkitError, match=r"--teacher '.*' has another tokenizer than the student"):
        finetune(squad)
    assert not config.output.exists()


def test_xmod_is_given_a_language(config: FinetuneOptions, teacher: Path, prose: list[str]) -> None:
    """X-MOD does not run without a language: fine-tuning and scoring give it its first."""
    tiny = {"vocab_size": 400, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    xmod = XmodConfig(
        num_hidden_layers=1, max_position_embeddings=98, pad_token_id=0, languages=("en_XX", "de_DE"), **tiny
    )
    model = CLASSIFIER.from_config(xmod)
    model.save_pretrained(config.output.with_name("xmod"))
    PreTrainedTokenizerFast.from_pretrained(teacher).save_pretrained(config.output.with_name("xmod"))
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.jsonl", samples(prose, lambda n: {"label": n % 2}))
    ours = replace(config, model=str(config.output.with_name("xmod")), steps=1)
    done, again = finetune(ours), scored(ours)
    assert again == {name: done.metrics[name] for name in again}


def test_rows_of_about_the_same_length_share_a_batch(config: FinetuneOptions, prose: list[str]) -> None:
    """A job's batches are grouped by length: they hold less padding than batches of rows in random order."""
    rows = [{"text": "value " * (1 + n % 20), "label": n % 2} for n in range(120)]
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.jsonl", rows)
    [task] = resolve(config)
    batches = prepare(task, settle(task, config)).batches(config)
    grouped = sum(batches[n]["input_ids"].numel() for n in range(batches.per_epoch))
    batches.lengths, batches._epoch = None, -1
    shuffled = sum(batches[n]["input_ids"].numel() for n in range(batches.per_epoch))
    assert grouped < 0.8 * shuffled
    assert isinstance(batches[0]["labels"], torch.Tensor)


def test_hidden_states_of_a_wider_task_teacher(
    config: FinetuneOptions,
    make_checkpoint: Callable[..., Path],
    other_tokenizer: PreTrainedTokenizerFast,
    prose: list[str],
) -> None:
    """They are learnt through a projection and logged; without a teacher, or with other tokens, there are none."""
    for split in ("train", "validation"):
        write(Path(str(config.data)) / f"{split}.jsonl", samples(prose, lambda n: {"label": WORDS[n]}))
    wide = make_checkpoint("bert", 3, hidden_size=48)
    expert = replace(config, model=str(wide), output=config.output.with_name("expert"), steps=4)
    finetune(expert)
    learner = replace(config, teacher=str(expert.output), alpha_hidden=1.0, steps=30, log_every=1)
    finetune(learner)
    lines = [json.loads(line) for line in (config.output / "train.jsonl").read_text().splitlines()]
    hidden = [line["hidden"] for line in lines if "hidden" in line]
    assert len(hidden) == 30
    assert hidden[-1] < 0.9 * hidden[0]
    CLASSIFIER.from_pretrained(config.output)  # the projection is not a part of it

    other_tokenizer.save_pretrained(expert.output)
    for changes, message in (
        ({}, "--alpha-hidden and --alpha-attention compare token by token"),
        ({"teacher": None}, "--alpha-hidden needs a teacher"),
    ):
        with pytest.raises(DistilkitError, match=message):
            finetune(replace(learner, output=config.output.with_name("refused"), **changes))
        assert not config.output.with_name("refused").exists()
