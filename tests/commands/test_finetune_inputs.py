"""finetune on your own rows of every kind, on long texts, and with teachers of another architecture or tokenizer."""

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
from distilkit.commands.finetune import complete_options, finetune
from distilkit.commands.finetune_inputs import open_student, prepare
from distilkit.errors import DistilkitError
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.tasks.catalogue import resolve

CLASSIFIER = AutoModelForSequenceClassification
WORDS = ("return the value", "raise an error if", "see the module")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the file's suffix; return the folder."""
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
    """Return rows of three classes, which their first words give away."""
    return [{text: f"{WORDS[n % 3]} {prose[n][:20]}", **label(n % 3)} for n in range(36)]


@pytest.fixture
def options(make_checkpoint: Callable[..., Path], tmp_path: Path) -> FinetuneOptions:
    """Enough updates to learn an easy custom task. Without dropout, since its random numbers depend on the machine."""
    return FinetuneOptions(
        model=str(make_checkpoint("bert", 4, **NO_DROPOUT)),
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


def scored(options: FinetuneOptions) -> dict[str, float]:
    """Score an output with eval, given only the options that name its rows."""
    given = {name: getattr(options, name) for name in ("task", "data", "text", "label")}
    return evaluate(EvalOptions(models=(str(options.output),), **given)).metrics


CUSTOM: dict[str, tuple[str, str, Callable[[int], dict[str, Any]], str, dict[int, str]]] = {
    "names": ("jsonl", "label", lambda n: {"label": ("c", "b", "a")[n]}, "accuracy", {0: "a", 1: "b", 2: "c"}),
    "numbers": ("tsv", "label", lambda n: {"label": 3 - n}, "accuracy", {0: "1", 1: "2", 2: "3"}),
    "lists": ("jsonl", "label", lambda n: {"label": [[], ["a"], ["a", "b"]][n]}, "f1_micro", {0: "a", 1: "b"}),
    "columns": ("csv", "b,a", lambda n: {"a": int(n > 0), "b": int(n > 1)}, "f1_micro", {0: "b", 1: "a"}),
    "floats": ("csv", "label", lambda n: {"label": n - 0.5}, "pearson", {0: "LABEL_0"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CUSTOM)
def test_your_own_rows(options: FinetuneOptions, prose: list[str], case: str) -> None:
    """Every label type in every file format is learnt and named in the model. eval scores it without --kind."""
    ending, label, make, metric, names = CUSTOM[case]
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.{ending}", samples(prose, make))
    own = replace(options, label=label)
    done = finetune(own)
    assert done.metrics[f"custom/{metric}"] > 0.95
    found = CLASSIFIER.from_pretrained(options.output).config
    assert found.id2label == names
    assert found.label2id == {name: place for place, name in names.items()}
    again = scored(own)
    assert again == pytest.approx({name: value for name, value in done.metrics.items() if name in again})


def test_a_pair_of_columns(options: FinetuneOptions, prose: list[str]) -> None:
    """Two --text columns are encoded as a pair."""
    rows = [{"a": prose[n][:20], "b": WORDS[n % 2], "label": n % 2} for n in range(24)]
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.tsv", rows)
    assert finetune(replace(options, text=("a", "b"))).metrics["custom/accuracy"] == 1.0


@pytest.mark.parametrize("long", ["head", "head-tail", "windows"])
def test_long_reviews(options: FinetuneOptions, prose: list[str], long: Any) -> None:
    """The end of a long review is read by head-tail and windows but not by head, in training and in eval."""
    filler = "the " * 40
    rows = [{"text": filler + WORDS[n % 2], "label": n % 2} for n in range(16)]
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.jsonl", rows)
    imdb = replace(options, task="imdb", text=None, label=None, long=long, max_length=24, batch_size=8)
    done = finetune(imdb)
    assert done.metrics["imdb/accuracy"] == (0.5 if long == "head" else 1.0)
    again = scored(imdb)
    assert again == pytest.approx({name: value for name, value in done.metrics.items() if name in again})


@pytest.fixture(scope="module")
def other_tokenizer(prose: list[str]) -> PreTrainedTokenizerFast:
    """A BPE tokenizer of 350 tokens with other special tokens than the student's."""
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
    options: FinetuneOptions,
    make_checkpoint: Callable[..., Path],
    other_tokenizer: PreTrainedTokenizerFast,
    prose: list[str],
    case: str,
) -> None:
    """Each model gets the row in its own tokens. Without labels, the student learns from the teacher."""
    ending, _, make, metric, _ = CUSTOM[case]
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.{ending}", samples(prose, make))
    wide = make_checkpoint("roberta", 2, hidden_size=48, pad_token_id=3, bos_token_id=0, eos_token_id=1)
    other_tokenizer.save_pretrained(wide)
    expert = replace(options, model=str(wide), output=options.output.with_name("expert"))
    assert finetune(expert).metrics[f"custom/{metric}"] > 0.95
    learner = replace(options, teacher=str(expert.output), alpha_task=0.0, alpha_ce=1.0, steps=80)
    assert finetune(learner).metrics[f"custom/{metric}"] > 0.95


def test_spans_need_the_students_tokenizer(
    options: FinetuneOptions, make_checkpoint: Callable[..., Path], other_tokenizer: PreTrainedTokenizerFast
) -> None:
    """With another tokenizer an answer starts at other tokens, so such a teacher is refused before the training."""
    row = {"id": "1", "question": "who?", "context": "Ann left.", "answers": {"text": ["Ann"], "answer_start": [0]}}
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.jsonl", [row])
    expert = make_checkpoint("bert", 1, AutoModelForQuestionAnswering)
    other_tokenizer.save_pretrained(expert)
    squad = replace(options, task="squad", text=None, label=None, teacher=str(expert), max_length=64, stride=16)
    with pytest.raises(DistilkitError, match=f"--teacher '{expert}'.* tokenizer"):
        finetune(squad)
    assert not options.output.exists()


def test_xmod_is_given_a_language(options: FinetuneOptions, teacher: Path, prose: list[str]) -> None:
    """X-MOD requires a language. Fine-tuning and scoring use its first one."""
    tiny = {"vocab_size": 400, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    xmod = XmodConfig(
        num_hidden_layers=1, max_position_embeddings=98, pad_token_id=0, languages=("en_XX", "de_DE"), **tiny
    )
    model = CLASSIFIER.from_config(xmod)
    model.save_pretrained(options.output.with_name("xmod"))
    PreTrainedTokenizerFast.from_pretrained(teacher).save_pretrained(options.output.with_name("xmod"))
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.jsonl", samples(prose, lambda n: {"label": n % 2}))
    own = replace(options, model=str(options.output.with_name("xmod")), steps=1)
    done, again = finetune(own), scored(own)
    assert again == {name: done.metrics[name] for name in again}


def test_rows_of_similar_length_share_a_batch(options: FinetuneOptions, prose: list[str]) -> None:
    """Batches of rows of similar length have less padding than batches of random rows."""
    rows = [{"text": "value " * (1 + n % 20), "label": n % 2} for n in range(120)]
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.jsonl", rows)
    [task] = resolve(options)
    batches = prepare(task, complete_options(task, options)).batches(options)
    grouped = sum(batches[n]["input_ids"].numel() for n in range(batches.per_epoch))
    batches.lengths, batches._epoch = None, -1
    shuffled = sum(batches[n]["input_ids"].numel() for n in range(batches.per_epoch))
    assert grouped < 0.8 * shuffled
    assert isinstance(batches[0]["labels"], torch.Tensor)


def test_hidden_states_of_a_wider_task_teacher(
    options: FinetuneOptions,
    make_checkpoint: Callable[..., Path],
    other_tokenizer: PreTrainedTokenizerFast,
    prose: list[str],
) -> None:
    """A projection learns them, and their loss is logged. They require a teacher with the same tokenizer."""
    for split in ("train", "validation"):
        write(Path(str(options.data)) / f"{split}.jsonl", samples(prose, lambda n: {"label": WORDS[n]}))
    wide = make_checkpoint("bert", 3, hidden_size=48)
    expert = replace(options, model=str(wide), output=options.output.with_name("expert"), steps=4)
    finetune(expert)
    learner = replace(options, teacher=str(expert.output), alpha_hidden=1.0, steps=30, log_every=1)
    finetune(learner)
    lines = [json.loads(line) for line in (options.output / "train.jsonl").read_text().splitlines()]
    hidden = [line["hidden"] for line in lines if "hidden" in line]
    assert len(hidden) == 30
    assert hidden[-1] < 0.9 * hidden[0]
    CLASSIFIER.from_pretrained(options.output)  # the projection is not saved

    other_tokenizer.save_pretrained(expert.output)
    for changes, message in (
        ({}, "--alpha-hidden and --alpha-attention"),
        ({"teacher": None}, "--alpha-hidden.*--teacher"),
    ):
        with pytest.raises(DistilkitError, match=message):
            finetune(replace(learner, output=options.output.with_name("refused"), **changes))
        assert not options.output.with_name("refused").exists()


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (("POSITIVE", "NEGATIVE"), [1, 0]),
        (("negative", "positive"), [0, 1]),
        (("LABEL_0", "LABEL_1"), [0, 1]),
        (("entailment", "not_entailment"), None),
    ],
)
def test_a_trained_head_is_kept_by_label_name(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, str],
    order: list[int] | None,
) -> None:
    """SST-2's outputs are negative, positive: rows of the head follow their names; a head of other labels is new."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    directory = make_checkpoint("bert", 1, auto=CLASSIFIER, **labels)
    options = FinetuneOptions(model=str(directory), task="sst2", output=tmp_path / "out")
    (task,) = resolve(options)
    found = open_student(task, options).classifier
    before = CLASSIFIER.from_pretrained(directory).classifier
    said = capsys.readouterr().err

    if order is None:
        assert not torch.isclose(found.weight, before.weight).any(dim=1).all()
        assert "its head for entailment, not_entailment is replaced by a new one" in said
    else:
        assert torch.equal(found.weight, before.weight[order])
        assert torch.equal(found.bias, before.bias[order])
        assert ("order" in said) == (order == [1, 0])


def test_a_head_for_another_kind_of_task_is_new(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A multi-label head of the same width and names is no classifier of one label."""
    labels = {"id2label": {0: "negative", 1: "positive"}, "problem_type": "multi_label_classification"}
    directory = make_checkpoint("bert", 1, auto=CLASSIFIER, **labels)
    options = FinetuneOptions(model=str(directory), task="sst2", output=tmp_path / "out")
    open_student(resolve(options)[0], options)

    assert "replaced by a new one" in capsys.readouterr().err
