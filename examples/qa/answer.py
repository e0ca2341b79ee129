"""Answer a question from a text file with an exported span model: onnxruntime and tokenizers, no torch.

distilkit finetune student --task squad -o student-squad
distilkit export student-squad -o student-squad-onnx
python examples/qa/answer.py student-squad-onnx text.txt 'Who wrote it?'
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

STRIDE = 64  # tokens that neighbouring windows share
LONGEST = 30  # tokens of an answer
BATCH = 8  # windows


def open_model(directory: Path) -> tuple[onnxruntime.InferenceSession, Tokenizer]:
    """Return the program and a tokenizer that cuts a long text into overlapping windows."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer.enable_truncation(settings["model_max_length"], stride=STRIDE, strategy="only_second")
    padding = settings["pad_token"]
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(padding), pad_token=padding)
    return onnxruntime.InferenceSession(directory / "model.onnx"), tokenizer


def feeds(session: onnxruntime.InferenceSession, windows: list[Encoding]) -> dict[str, np.ndarray]:
    """Return the program's inputs (W, T)."""
    values = {
        "input_ids": [window.ids for window in windows],
        "attention_mask": [window.attention_mask for window in windows],
        "token_type_ids": [window.type_ids for window in windows],
    }
    return {entry.name: np.array(values[entry.name], dtype=np.int64) for entry in session.get_inputs()}


def best_span(start: np.ndarray, end: np.ndarray, window: Encoding) -> tuple[float, int, int]:
    """Return the best answer in a window: its score, and where in the text it begins and ends; logits (T,)."""
    in_text = np.array([owner == 1 for owner in window.sequence_ids])
    pairs = np.where(in_text, start, -np.inf)[:, None] + np.where(in_text, end, -np.inf)[None, :]  # (T, T)
    everywhere = np.ones_like(pairs, dtype=bool)
    ordered = np.triu(everywhere) & np.tril(everywhere, LONGEST - 1)  # the end is not before the start, nor far behind
    scores = np.where(ordered, pairs, -np.inf)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[first, last]), window.offsets[first][0], window.offsets[last][1]


def answer(session: onnxruntime.InferenceSession, tokenizer: Tokenizer, question: str, text: str) -> tuple[float, str]:
    """Return the score and the text of the best answer over all windows."""
    encoded = tokenizer.encode(question, text)
    windows = [encoded, *encoded.overflowing]
    found: list[tuple[float, int, int]] = []
    for number in range(0, len(windows), BATCH):
        part = windows[number : number + BATCH]
        start, end = session.run(["start_logits", "end_logits"], feeds(session, part))
        found += [best_span(*logits, window) for *logits, window in zip(start, end, part, strict=True)]
    score, begin, stop = max(found)
    return score, text[begin:stop]


def main() -> None:
    directory, file, question = sys.argv[1:4]
    started = time.perf_counter()
    session, tokenizer = open_model(Path(directory))
    loaded = time.perf_counter()
    score, found = answer(session, tokenizer, question, Path(file).read_text(encoding="utf-8"))
    print(found)
    milliseconds = 1e3 * (time.perf_counter() - loaded)
    print(f"score {score:.2f}; loaded in {loaded - started:.2f} s, answered in {milliseconds:.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
