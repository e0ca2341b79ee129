"""Search a folder of text by meaning with an exported sentence encoder: onnxruntime and tokenizers, no torch.

distilkit export all-MiniLM-L6-v2 -o encoder-onnx
python examples/search/search.py encoder-onnx docs/ 'make a model smaller' [NUMBER]
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

SUFFIXES = {".md", ".rst", ".txt"}
BATCH = 16  # paragraphs


def open_model(directory: Path) -> tuple[onnxruntime.InferenceSession, Tokenizer]:
    """Return the program, whose output is one vector for each text, and its tokenizer."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer.enable_truncation(settings["model_max_length"])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(settings["pad_token"]), pad_token=settings["pad_token"])
    return onnxruntime.InferenceSession(directory / "model.onnx"), tokenizer


def embed(session: onnxruntime.InferenceSession, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Return the vectors (N, D) of texts, of length 1. Texts of about one length share a batch."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    vectors: dict[int, np.ndarray] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        encoded = tokenizer.encode_batch([texts[number] for number in chosen])
        values = {
            "input_ids": [row.ids for row in encoded],
            "attention_mask": [row.attention_mask for row in encoded],
            "token_type_ids": [row.type_ids for row in encoded],
        }
        inputs = {entry.name: np.array(values[entry.name], dtype=np.int64) for entry in session.get_inputs()}
        (found,) = session.run(["sentence_embedding"], inputs)
        vectors |= zip(chosen, found / np.linalg.norm(found, axis=1, keepdims=True), strict=True)
    return np.stack([vectors[number] for number in range(len(texts))])


def paragraphs(folder: Path) -> list[tuple[Path, str]]:
    """Return the paragraphs of all text files in a folder, with their files."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    texts = [(path, path.read_text(encoding="utf-8", errors="replace")) for path in files]
    return [(path, " ".join(part.split())) for path, text in texts for part in text.split("\n\n") if part.strip()]


def main() -> None:
    directory, folder, query = sys.argv[1:4]
    number = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    session, tokenizer = open_model(Path(directory))
    found = paragraphs(Path(folder))
    started = time.perf_counter()
    vectors = embed(session, tokenizer, [text for _, text in found])
    indexed = time.perf_counter()
    scores = vectors @ embed(session, tokenizer, [query])[0]
    for place in np.argsort(-scores)[:number]:
        print(f"{scores[place]:.3f}  {found[place][0]}: {found[place][1][:100]}")
    milliseconds = 1e3 * (time.perf_counter() - indexed)
    rate = len(found) / (indexed - started)
    print(f"{len(found)} paragraphs at {rate:.0f} per second; searched in {milliseconds:.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
