"""Make rows of a tagging task, proper names in text without capitals, out of plain text.

    python name_rows.py wikipedia-train.txt wikipedia-heldout.txt rows/names

The text must use capitals as English does: a run of capitalised words is a name. The first word of a sentence is part
of a name if elsewhere in the text it has a capital more often than not. The rows are in lower case, as speech
recognition writes, so a tagger has to know names. Labels made in this way have errors; they compare taggers with each
other. Writes train.jsonl and validation.jsonl (`tokens`, `ner_tags`), and texts.txt: further sentences without labels.
"""

import argparse
import json
import random
import re
from collections import Counter
from pathlib import Path

WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'“(]?[A-Z])")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="text for training rows and for texts without labels")
    parser.add_argument("validation", type=Path, help="text for validation rows")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, nargs=3, default=[10_000, 2_000, 50_000], metavar=("TRAIN", "VAL", "TEXTS"))
    arguments = parser.parse_args()
    train, validation = sentences(arguments.train), sentences(arguments.validation)
    names = name_words(train)
    labelled, tested, texts = arguments.rows
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, chosen in (("train", train[:labelled]), ("validation", validation[:tested])):
        rows = [json.dumps(row(words, names), ensure_ascii=False) for words in chosen]
        (arguments.out / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    unlabelled = (" ".join(words).lower() for words in train[labelled : labelled + texts])
    (arguments.out / "texts.txt").write_text("\n\n".join(unlabelled) + "\n", encoding="utf-8")


def sentences(path: Path) -> list[list[str]]:
    """Return the words of each sentence of 5 to 60 words, once each, in random order."""
    found = {sentence: None for line in path.read_text("utf-8").splitlines() for sentence in SENTENCE_END.split(line)}
    words = [WORD.findall(sentence) for sentence in found]
    kept = [sentence for sentence in words if 5 <= len(sentence) <= 60]
    random.Random(0).shuffle(kept)  # noqa: S311 - an order, not a secret
    return kept


def is_capitalised(word: str) -> bool:
    return word[0].isupper() and word != "I"


def name_words(text: list[list[str]]) -> set[str]:
    """Return the words, in lower case, that mostly have a capital where no sentence starts."""
    counts: Counter[str] = Counter()
    for words in text:
        counts.update({word.lower(): 0 for word in words})
        for word in words[1:]:
            counts[word.lower()] += 1 if is_capitalised(word) else -1
    return {word for word, balance in counts.items() if balance > 0}


def row(words: list[str], names: set[str]) -> dict[str, list[str]]:
    """Return the words in lower case and their tags: B-NAME, I-NAME or O."""
    tags: list[str] = []
    for place, word in enumerate(words):
        named = is_capitalised(word) and (place > 0 or word.lower() in names)
        tags.append(("I-NAME" if tags and tags[-1] != "O" else "B-NAME") if named else "O")
    return {"tokens": [word.lower() for word in words], "ner_tags": tags}


if __name__ == "__main__":
    main()
