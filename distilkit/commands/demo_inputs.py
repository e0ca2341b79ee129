"""What `demo` starts from: made-up reviews with labels, an untrained classifier of them, and real English text."""

import ast
import inspect
import json
import random
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedTokenizerBase

from distilkit.data import corpus
from distilkit.encoders import checkpoint
from distilkit.files import write_text

THINGS = {
    "food": ("soup", "bread", "coffee", "dessert", "salad", "breakfast", "cake", "fish", "pasta", "cheese"),
    "staff": ("waiter", "chef", "manager", "cook", "porter", "cleaner", "owner", "guide", "driver", "host"),
    "room": ("bed", "shower", "window", "lamp", "carpet", "balcony", "mirror", "sofa", "desk", "bathroom"),
}
ADJECTIVES = {
    "good": ("good", "great", "lovely", "perfect", "pleasant", "excellent", "nice", "wonderful", "superb", "brilliant"),
    "bad": ("bad", "awful", "horrible", "terrible", "poor", "dreadful", "useless", "dismal", "shabby", "hopeless"),
}
VERBS, NEGATIONS, ADVERBS = ("was", "seemed", "is"), ("not", "never", "hardly"), ("", "", "very", "really", "quite")
NEGATED_SHARE = 0.2
# One or two clauses, and which of them decides what the review says.
FORMS = (
    ("{} .", 0),
    ("{} .", 0),
    ("{} , but {} .", 1),
    ("although {} , {} .", 1),
    ("{} , although {} .", 0),
    ("{} , and {} , but that does not matter .", 0),
)
INITIALIZER_RANGE = 0.06  # BERT's 0.02 is for a width of 768; at 128 it leaves some seeds on a plateau
MIN_WORDS = 8  # of a paragraph
HELDOUT_SHARE, MAX_HELDOUT, MAX_PARAGRAPHS = 0.05, 500, 20_000
SKIPPED = {"test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo"}


@dataclass(frozen=True)
class Sizes:
    """How many reviews there are, and how large and how long the teacher is trained."""

    labelled: int = 6000
    few: int = 100  # labels for the baseline
    unlabelled: int = 6000
    heldout: int = 500
    validation: int = 2000
    width: int = 128
    layers: int = 4
    epochs: float = 3.0


def write_reviews(out: Path, sizes: Sizes, seed: int) -> None:
    """Write made-up reviews: labelled/ and few/ with the same validation rows, corpus.txt and heldout.txt.

    No review is in two of the files.
    """
    source = distinct_reviews(random.Random(seed))  # noqa: S311 - not for cryptography
    labelled, few, validation, unlabelled, heldout = (
        list(islice(source, count))
        for count in (sizes.labelled, sizes.few, sizes.validation, sizes.unlabelled, sizes.heldout)
    )
    for name, training in (("labelled", labelled), ("few", few)):
        (out / name).mkdir()
        for split, rows in (("train", training), ("validation", validation)):
            lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
            write_text(out / name / f"{split}.jsonl", "".join(lines))
    for name, rows in (("corpus", unlabelled), ("heldout", heldout)):
        write_text(out / f"{name}.txt", "".join(text + "\n" for text, _ in rows))


def distinct_reviews(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (review, label) without end, each review once."""
    known: set[str] = set()
    while True:
        text, label = review(chance)
        if text not in known:
            known.add(text)
            yield text, label


def review(chance: random.Random) -> tuple[str, str]:
    """Return a made-up review and its label: the verdict of the clause that decides, and its subject ("bad food")."""
    subjects = chance.sample(list(THINGS), 2)
    clauses, verdicts = zip(*(clause(chance, subject) for subject in subjects), strict=True)
    form, decides = chance.choice(FORMS)
    return form.format(*clauses), f"{verdicts[decides]} {subjects[decides]}"


def clause(chance: random.Random, subject: str) -> tuple[str, str]:
    """Return a clause about a subject, and its verdict. A negation reverses the adjective's verdict."""
    verdict = chance.choice(("good", "bad"))
    negation = chance.choice(NEGATIONS) if chance.random() < NEGATED_SHARE else ""
    thing, adjective = chance.choice(THINGS[subject]), chance.choice(ADJECTIVES[verdict])
    words = ("the", thing, chance.choice(VERBS), negation, chance.choice(ADVERBS), adjective)
    if negation:
        verdict = "bad" if verdict == "good" else "good"
    return " ".join(filter(None, words)), verdict


def vocabulary() -> list[str]:
    """Return every word that a review can have, in a fixed order."""
    lists = (*THINGS.values(), *ADJECTIVES.values(), VERBS, NEGATIONS, ADVERBS, ("the",))
    frames = (form.replace("{}", "").split() for form, _ in FORMS)
    return sorted({word for words in (*lists, *frames) for word in words if word})


def write_untrained(out: Path, sizes: Sizes, seed: int) -> None:
    """Write a small, randomly initialised BERT with a tokenizer of the reviews' words."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary()]
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer: PreTrainedTokenizerBase = BertTokenizer(vocab=numbers, model_max_length=64)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=4,
        intermediate_size=4 * sizes.width,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=INITIALIZER_RANGE,
    )
    checkpoint.save(BertModel(config), tokenizer, out)


def write_paragraphs(out: Path, source: str | None, seed: int) -> None:
    """Write corpus.txt and heldout.txt, one paragraph per line, from a corpus or from Python's documentation."""
    found = documentation() if source is None else paragraphs_of_corpus(source)
    paragraphs = list(islice(dict.fromkeys(found), MAX_PARAGRAPHS))
    random.Random(seed).shuffle(paragraphs)  # noqa: S311 - not for cryptography
    heldout = max(1, min(MAX_HELDOUT, int(HELDOUT_SHARE * len(paragraphs))))
    for name, part in (("heldout", paragraphs[:heldout]), ("corpus", paragraphs[heldout:])):
        write_text(out / f"{name}.txt", "".join(text + "\n" for text in part))


def paragraphs_of_corpus(source: str) -> Iterator[str]:
    """Yield the lines of a corpus that are not blank."""
    for document in corpus.read_documents(source)["text"]:
        yield from (" ".join(line.split()) for line in (document or "").splitlines() if line.strip())


def documentation() -> Iterator[str]:
    """Yield the paragraphs of the language reference and of all docstrings of the standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    files = (path for path in sorted(library.rglob("*.py")) if not SKIPPED & set(path.relative_to(library).parts))
    yield from paragraphs_of(topics.values())
    for path in files:
        yield from paragraphs_of(docstrings(path))


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a source file without importing it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # the library has a few invalid files for its own tests
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def paragraphs_of(texts: Iterable[str]) -> Iterator[str]:
    """Yield the paragraphs of at least MIN_WORDS words, each on one line."""
    for text in texts:
        for paragraph in inspect.cleandoc(text).split("\n\n"):
            words = paragraph.split()
            if len(words) >= MIN_WORDS:
                yield " ".join(words)
