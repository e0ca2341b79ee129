"""Time init's tensor work on a teacher of BERT-large's size: distilkit, the usual recipe, and a file copy, alternating.

    python examples/benchmarks/init_speed.py DIRECTORY [RUNS]

Tensor work is reading and writing weights: open the teacher, extract 12 of 24 layers, save them. It excludes the start
of Python, imports, the tokenizer and the verification. Times run until the last write returns (cached) and until the
bytes are on the disk (fsync). The usual recipe is from_pretrained, a sliced module list and save_pretrained, as in the
examples of other tools. The copy is shutil.copyfile of the student's weights. Each runs in its own process. Memory is
the peak of the resident set, in total and above the resident set after the imports.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

PRELUDE = """
import json, os, pathlib, shutil, sys, time
teacher, out, copied = sys.argv[1:]
import torch, transformers
from torch import nn
from transformers.models.bert import BertForMaskedLM
from distilkit.encoders import checkpoint
from distilkit.encoders.layers import truncate_shared
transformers.utils.logging.disable_progress_bar()
layers = range(0, 24, 2)
def memory(field):  # not getrusage, because a child inherits its parent's peak
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))
shutil.rmtree(out, ignore_errors=True)
os.sync()
before, started = memory("VmRSS"), time.perf_counter()
"""
WAYS = {
    "distilkit": "truncate_shared(checkpoint.open_as_saved(teacher), layers).save_pretrained(out)",
    "usual": (
        "model = BertForMaskedLM.from_pretrained(teacher)\n"
        "model.bert.encoder.layer = nn.ModuleList([model.bert.encoder.layer[i] for i in layers])\n"
        "model.config.num_hidden_layers = len(layers)\n"
        "model.save_pretrained(out)"
    ),
    "copy": "os.makedirs(out); shutil.copyfile(copied, out + '/model.safetensors')",
}
EPILOGUE = """
cached = time.perf_counter() - started
for path in pathlib.Path(out).iterdir():
    with path.open("rb") as file:
        os.fsync(file.fileno())
on_disk, peak = time.perf_counter() - started, memory("VmHWM")
print(json.dumps({"cached": cached, "on_disk": on_disk, "peak_bytes": peak, "peak_bytes_above_imports": peak - before}))
"""


def write_teacher(directory: Path) -> None:
    """Write a randomly initialised BERT of BERT-large's size, in fp32."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    BertForMaskedLM(BertConfig(**shape)).save_pretrained(directory)


def run(way: str, place: Path) -> dict[str, float]:
    """Run one way in its own process; return its times and memory."""
    program = PRELUDE + WAYS[way] + EPILOGUE
    words = [str(place / "teacher"), str(place / way), str(place / "distilkit-first/model.safetensors")]
    done = subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def main(directory: str, runs: int) -> None:
    """Warm up, alternate, and print medians of the times and of the ratios within a round."""
    place = Path(directory)
    if not (place / "teacher/config.json").is_file():
        write_teacher(place / "teacher")
    run("distilkit", place)
    if not (place / "distilkit-first").exists():
        (place / "distilkit").rename(place / "distilkit-first")
    size = (place / "distilkit-first/model.safetensors").stat().st_size
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(-1, runs):
        for way in WAYS:
            result = run(way, place)
            if number >= 0:
                found[way].append(result)
    same = (place / "distilkit/model.safetensors").read_bytes() == (place / "usual/model.safetensors").read_bytes()
    summary: dict[str, object] = {"runs": runs, "student_bytes": size, "same_bytes_as_usual": same}
    for way, results in found.items():
        summary[way] = {
            name: round(statistics.median(values), 3)
            for name, values in {
                "seconds_cached": [result["cached"] for result in results],
                "seconds_on_disk": [result["on_disk"] for result in results],
                "cached_times_copy": [a["cached"] / b["cached"] for a, b in zip(results, found["copy"], strict=True)],
                "on_disk_times_copy": [
                    a["on_disk"] / b["on_disk"] for a, b in zip(results, found["copy"], strict=True)
                ],
                "peak_of_student": [result["peak_bytes"] / size for result in results],
                "peak_above_imports_of_student": [result["peak_bytes_above_imports"] / size for result in results],
            }.items()
        }
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 9)
