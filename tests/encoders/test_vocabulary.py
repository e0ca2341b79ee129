"""Prune a vocabulary: the text is split as before, and the logits of kept tokens do not change."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import SentencePieceUnigramTokenizer, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from distilkit.commands.distill import distill
from distilkit.commands.init import init
from distilkit.encoders import vocabulary
from distilkit.encoders.checkpoint import redefine
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.init import InitOptions

SPECIAL = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
SPECIAL |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
NAMES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_level(prose: list[str]) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer like RoBERTa's."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        prose, trainers.BpeTrainer(vocab_size=600, special_tokens=NAMES, initial_alphabet=alphabet)
    )
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(tokenizer_object=core, **SPECIAL)


def unigram(prose: list[str]) -> PreTrainedTokenizerBase:
    """A SentencePiece Unigram tokenizer like XLM-R's."""
    core = SentencePieceUnigramTokenizer()
    core.train_from_iterator(prose, vocab_size=500, special_tokens=NAMES, unk_token="<unk>", show_progress=False)
    core._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, **SPECIAL)


KINDS: dict[str, Callable[[list[str]], PreTrainedTokenizerBase]] = {"BPE": byte_level, "Unigram": unigram}


@pytest.fixture(params=["WordPiece", "BPE", "Unigram"])
def full(
    request: pytest.FixtureRequest, prose: list[str], tokenizer: PreTrainedTokenizerFast
) -> PreTrainedTokenizerBase:
    """A tokenizer of each kind."""
    return tokenizer if request.param == "WordPiece" else KINDS[request.param](prose)


@pytest.fixture
def teacher_of(tmp_path: Path) -> Callable[[PreTrainedTokenizerBase], Path]:
    """Return a function that writes a tiny XLM-R with a tokenizer's vocabulary."""

    def write(full: PreTrainedTokenizerBase) -> Path:
        torch.manual_seed(0)
        config = XLMRobertaConfig(
            vocab_size=len(full), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=98, pad_token_id=full.pad_token_id,
        )  # fmt: skip
        model = XLMRobertaForMaskedLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path / "teacher")
        full.save_pretrained(tmp_path / "teacher")
        return tmp_path / "teacher"

    return write


def test_a_text_s_own_tokens_are_enough(
    full: PreTrainedTokenizerBase,
    teacher_of: Callable[[PreTrainedTokenizerBase], Path],
    prose: list[str],
    tmp_path: Path,
) -> None:
    """With the pruned vocabulary, the text has the same tokens and the model the same logits for them."""
    part = prose[:12]
    text = tmp_path / "part.txt"
    text.write_text("\n".join(part) + "\n", encoding="utf-8")
    teacher = teacher_of(full)
    done = init(InitOptions(teacher=str(teacher), output=tmp_path / "student", layers=2, vocabulary=str(text)))
    smaller = AutoTokenizer.from_pretrained(tmp_path / "student")
    before, after = (AutoModelForMaskedLM.from_pretrained(tmp_path / name).eval() for name in ("teacher", "student"))

    assert done.metrics["student/vocabulary"] == len(smaller) == after.config.vocab_size < len(full)
    kept = [full.convert_tokens_to_ids(token) for token in smaller.convert_ids_to_tokens(range(len(smaller)))]
    for line in part:
        old, new = (tok(line, truncation=True, max_length=96, return_tensors="pt") for tok in (full, smaller))
        assert old.tokens() == new.tokens()
        with torch.no_grad():
            wanted = before(input_ids=old["input_ids"]).logits[..., kept]
            assert torch.equal(after(input_ids=new["input_ids"]).logits, wanted)
    assert smaller.decode(smaller(part[0])["input_ids"]) == full.decode(full(part[0])["input_ids"])


def test_specials_keep_their_roles(full: PreTrainedTokenizerBase, prose: list[str]) -> None:
    """Special tokens keep their names and positions; only their ids change."""
    from distilkit.encoders import checkpoint, vocabulary

    kept = vocabulary.choose_tokens(vocabulary.count_tokens(Dataset.from_dict({"text": prose[:3]}), full), full)
    smaller = checkpoint.redefine(full, vocabulary.rewrite_tokenizer(full.backend_tokenizer.to_str(), kept))

    assert smaller.special_tokens_map == full.special_tokens_map
    assert smaller(prose[0], prose[1]).tokens() == full(prose[0], prose[1]).tokens()
    assert smaller.convert_ids_to_tokens(smaller.all_special_ids) == full.convert_ids_to_tokens(full.all_special_ids)


def test_counts_are_the_plain_ones(full: PreTrainedTokenizerBase, prose: list[str]) -> None:
    """They equal counts over the plain tokenizer's ids."""
    counts = vocabulary.count_tokens(Dataset.from_dict({"text": prose[:5]}), full)
    ids = [i for line in prose[:5] for i in full(line, add_special_tokens=False)["input_ids"]]

    assert counts.tolist() == [ids.count(i) for i in range(len(counts))]


def test_the_commonest_tokens_of_a_corpus(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    """--vocabulary N keeps N tokens and those that they need. It requires a text to count in."""
    options = {"teacher": str(teacher), "layers": 2, "vocabulary": "100"}
    with pytest.raises(DistilkitError, match="--vocabulary N counts tokens"):
        init(InitOptions(output=tmp_path / "a", **options))  # type: ignore[arg-type]
    done = init(InitOptions(output=tmp_path / "b", corpus=str(corpus), **options))  # type: ignore[arg-type]

    assert 105 <= done.metrics["student/vocabulary"] < 250
    assert done.metrics["max_difference"] == 0


def test_a_student_with_fewer_tokens_is_distilled_against_its_teacher(
    teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    """The teacher is pruned to the student's tokens; a teacher that lacks one of them is refused."""
    init(InitOptions(teacher=str(teacher), output=tmp_path / "s", vocabulary="100", corpus=str(corpus)))
    options = {"corpus": str(corpus), "steps": 2, "batch_size": 2, "seq_length": 32}
    done = distill(DistillOptions(student=str(tmp_path / "s"), output=tmp_path / "d", **options))  # type: ignore[arg-type]
    full, small = (AutoTokenizer.from_pretrained(place) for place in (teacher, tmp_path / "s"))
    ids = vocabulary.shared_ids(small, full)
    before, after = (AutoModelForMaskedLM.from_pretrained(place).eval() for place in (teacher, teacher))
    inputs = torch.randint(5, len(small), (2, 10))
    with torch.no_grad():
        wanted = before(input_ids=torch.tensor(ids)[inputs]).logits[..., ids]
        assert torch.equal(vocabulary.prune(after, ids)(input_ids=inputs).logits, wanted)

    assert done.metrics["loss"] > 0
    assert full.convert_ids_to_tokens(ids) == small.convert_ids_to_tokens(range(len(small)))
    assert vocabulary.to_vocabulary(after, full, full) is after
    with pytest.raises(DistilkitError, match="--teacher"):
        vocabulary.to_vocabulary(after, small, full)


def test_a_word_that_ends_as_unknown_stays_so() -> None:
    """WordPiece tries tokens inside a word before it returns [UNK]; these must be kept too."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "a", "##b", "##c", "##bc", "c"]
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    full = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    assert full.tokenize("abx") == ["[UNK]"]
    ids = vocabulary.find_tokens_inside(["abc"], full)

    assert {full.convert_ids_to_tokens(i) for i in ids} == {"ab", "a", "##b", "##c", "##bc", "c"}


def test_size_of_an_xlm_r() -> None:
    """Half the layers leave most of XLM-R-base; a fifth of its tokens does not (shapes only, nothing is allocated)."""
    from distilkit.encoders.layers import truncate_shared

    config = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1)
    with torch.device("meta"):
        teacher = XLMRobertaForMaskedLM(config)
    half = truncate_shared(teacher, range(6))
    fewer = vocabulary.prune(half, np.arange(50_000).tolist())

    assert teacher.num_parameters() == 278_295_186
    assert half.num_parameters() == 278_295_186 - 6 * 7_087_872
    assert fewer.num_parameters() == half.num_parameters() - 200_002 * (768 + 1)


def test_the_same_tokens_with_other_ids_are_refused(teacher: Path) -> None:
    """Two ids exchanged: the logits of the two models belong to different tokens."""
    definition = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = definition["model"]["vocab"]
    one, other = [token for token in vocab if token.isalpha()][:2]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    own = AutoTokenizer.from_pretrained(teacher)
    exchanged = redefine(own, json.dumps(definition))

    assert exchanged.get_vocab().keys() == own.get_vocab().keys()
    with pytest.raises(DistilkitError, match=r"--teacher.*--against"):
        vocabulary.to_vocabulary(AutoModelForMaskedLM.from_pretrained(teacher), own, exchanged)
