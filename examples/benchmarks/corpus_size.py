"""Make a large text and measure what preparing it for `distill` takes: memory, time, disk, and the cost of a batch.

    python examples/benchmarks/corpus_size.py WORKPLACE CHECKPOINT MEGABYTES TEXT…

The text is made of the TEXT files (.txt, .gz too; documents between blank lines, or a document a line), again and again
until it has so many megabytes: from the second time on the documents are in another order and one word in eight is
another one of the same document, drawn by random.Random(time). It lies in WORKPLACE/<megabytes>.txt, a document a line,
datasets' cache beside it. CHECKPOINT gives the tokenizer.

Each way is a process of its own. Seconds run from the first read to the first batch of 32 x 128, without Python's
imports, which are given apart. Memory is the peak of the resident set (VmHWM), which counts files' pages while they are
mapped; `anonymous` is the largest RssAnon seen, sampled.
The cost of a batch is the median of 2,000, fetched at random from the memory map and masked.
"""

import gzip
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, time
began = time.perf_counter()
import json, os, pathlib, statistics, threading
from distilkit import checkpoint, corpus
from distilkit.rows import Rows
from distilkit.stream import StreamedBatches, set_aside
from distilkit.training import Batches

def status():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmHWM", "RssAnon")}

def watch():
    while True:
        anonymous.append(status()["RssAnon"])
        time.sleep(0.1)

text, name, way, packing = sys.argv[1:]
anonymous = []
threading.Thread(target=watch, daemon=True).start()
tokenizer = checkpoint.open_tokenizer(name)
collate = corpus.masked_batch(tokenizer, 0.15)
started = time.perf_counter()
result = {"way": way, "packing": packing, "seconds_to_import": started - began}
if way == "streaming":
    packer = corpus.make_packer(tokenizer, 128, packing)
    stream, _ = set_aside(text, packer)
    batches = StreamedBatches(stream, collate, batch_size=32, seed=0)
else:
    documents, fingerprint = corpus.read_once(text)
    stored = corpus.pack_documents(documents, tokenizer, 128, fingerprint=fingerprint, packing=packing)
    rows, _ = corpus.split(stored, 0)
    lengths = rows.lengths if packing == "documents" else None
    batches = Batches(rows, collate, batch_size=32, seed=0, lengths=lengths)
batches[0]
result["seconds_to_first_batch"] = time.perf_counter() - started
result["peak_bytes"] = status()["VmHWM"]
result["anonymous_bytes"] = max(anonymous)
if way != "streaming":
    sizes = [os.path.getsize(file["filename"]) for file in stored.cache_files]
    tokens = int(Rows(stored).lengths.sum(dtype="int64"))
    result |= {"rows": len(stored), "tokens": tokens, "bytes_on_disk": sum(sizes)}
    result["bytes_a_token"] = sum(sizes) / tokens
    result["tokens_per_second"] = tokens / result["seconds_to_first_batch"]
    for size in (8, 32):
        batches = Batches(rows, collate, batch_size=size, seed=1, lengths=lengths)
        batches[0]
        times = []
        for number in range(2000):
            before = time.perf_counter()
            batches[number % batches.per_epoch]
            times.append(time.perf_counter() - before)
        result[f"microseconds_a_batch_of_{size}"] = statistics.median(times) * 1e6
print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in result.items()}))
"""
WAYS = [
    ("first", "blocks"),
    ("second", "blocks"),
    ("streaming", "blocks"),
    ("first", "documents"),
]


def write_text(path: Path, size: int, sources: list[Path]) -> None:
    """Write the text, `size` bytes of it, under a temporary name first."""
    documents = [" ".join(document.split()) for source in sources for document in read(source)]
    documents = [document for document in documents if document]
    partial, time, written = path.with_suffix(".partial"), 0, 0
    with partial.open("w", encoding="utf-8") as file:
        while written < size:
            for document in documents if time == 0 else change(documents, random.Random(time)):  # noqa: S311
                written += len(document.encode()) + 1
                file.write(document + "\n")
                if written >= size:
                    break
            time += 1
    partial.replace(path)


def read(path: Path) -> list[str]:
    """Return the documents of a file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        text = file.read()
    return text.split("\n\n") if "\n\n" in text.strip() else text.split("\n")


def change(documents: list[str], chance: random.Random) -> list[str]:
    """Return the documents in another order, one word in eight of each replaced by another of its words."""
    changed = []
    for document in chance.sample(documents, len(documents)):
        words = document.split()
        for place in range(chance.randrange(8), len(words), 8):
            words[place] = words[chance.randrange(len(words))]
        changed.append(" ".join(words))
    return changed


def main(workplace: str, checkpoint: str, megabytes: str, sources: list[str]) -> None:
    """Make the text where it isn't there yet, then measure each way."""
    place = Path(workplace)
    place.mkdir(parents=True, exist_ok=True)
    text, cache = place / f"{megabytes}.txt", place / "cache"
    if not text.exists():
        write_text(text, int(megabytes) * 10**6, sorted(Path(source) for source in sources))
    for way, packing in WAYS:
        if way == "first":
            shutil.rmtree(cache, ignore_errors=True)
        words = [str(text), checkpoint, way, packing]
        environment = os.environ | {"HF_HOME": str(cache)}
        subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True, env=environment)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
