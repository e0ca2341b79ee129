"""Create a large text and measure the cost of preparing it for `distill`: memory, time, disk, and time per batch.

    python examples/benchmarks/corpus_size.py DIRECTORY CHECKPOINT MEGABYTES TEXT…

The text repeats the TEXT files (.txt, .gz too; documents are separated by blank lines, or each line is one) until it
has MEGABYTES megabytes. From the second repetition on, the documents are shuffled and one word in eight is replaced by
another word of its document. The text is DIRECTORY/MEGABYTES.txt, one document per line, and datasets' cache is beside
it. The tokenizer is that of CHECKPOINT.

Each way of reading runs in its own process. Seconds count from the first read to the first batch of 32 x 128; imports
are measured separately. Memory is the peak of the resident set (VmHWM), which includes mapped pages of files;
`anonymous` is the largest sampled RssAnon. The time per batch is the median of 2,000 batches, read in random order from
the memory map and masked.
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
from distilkit.data import corpus
from distilkit.data.batches import Batches
from distilkit.data.blocks import HELDOUT_BLOCKS, make_packer, pack_documents, split_blocks
from distilkit.data.masking import make_collate
from distilkit.data.streaming import StreamedBatches, split_stream
from distilkit.data.token_store import Rows
from distilkit.encoders import checkpoint

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
collate = make_collate(tokenizer, 0.15)
started = time.perf_counter()
result = {"way": way, "packing": packing, "seconds_to_import": started - began}
if way == "streaming":
    packer = make_packer(tokenizer, 128, packing)
    stream, _ = split_stream(text, packer, HELDOUT_BLOCKS)
    batches = StreamedBatches(stream, collate, batch_size=32, seed=0)
else:
    documents, fingerprint = corpus.read_once(text)
    stored = pack_documents(documents, tokenizer, 128, fingerprint=fingerprint, packing=packing)
    rows, _ = split_blocks(stored, 0)
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
    """Write a text of `size` bytes, under a temporary name first."""
    documents = [" ".join(document.split()) for source in sources for document in read(source)]
    documents = [document for document in documents if document]
    partial, repetition, written = path.with_suffix(".partial"), 0, 0
    with partial.open("w", encoding="utf-8") as file:
        while written < size:
            for document in documents if repetition == 0 else change(documents, random.Random(repetition)):  # noqa: S311
                written += len(document.encode()) + 1
                file.write(document + "\n")
                if written >= size:
                    break
            repetition += 1
    partial.replace(path)


def read(path: Path) -> list[str]:
    """Return the documents of a file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        text = file.read()
    return text.split("\n\n") if "\n\n" in text.strip() else text.split("\n")


def change(documents: list[str], generator: random.Random) -> list[str]:
    """Shuffle the documents, and replace one word in eight by another word of the same document."""
    changed = []
    for document in generator.sample(documents, len(documents)):
        words = document.split()
        for position in range(generator.randrange(8), len(words), 8):
            words[position] = words[generator.randrange(len(words))]
        changed.append(" ".join(words))
    return changed


def main(directory: str, checkpoint: str, megabytes: str, sources: list[str]) -> None:
    """Create the text unless it exists, then measure each way of reading it."""
    place = Path(directory)
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
