"""Kill every command that writes, fill its disk, take its output away: count what is lost or left behind.

    python examples/benchmarks/reliability.py [--kills 16] [--steps 10] [--minutes 60]

Each command runs in a process of its own, forked from this one, which has loaded the libraries. Prints a table for
docs/reliability.md, and exits with 1 if a promise was broken.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

import distilkit.__main__
import distilkit.cli
import distilkit.commands.bench
import distilkit.commands.distill
import distilkit.commands.evaluate
import distilkit.commands.export
import distilkit.commands.finetune
import distilkit.commands.init
import distilkit.commands.predict
import distilkit.commands.report
from distilkit.claims import LOCK

TEXT = "the cat saw the man with his house and the dog ran to a small red tree near the old river"
TRAIN = "--batch-size 4 --seq-length 16 --steps 24 --checkpoint-every 6 --log-every 2"
TUNE = "finetune student --data rows --epochs 1 --batch-size 2 --evaluate-every 4 --checkpoint-every 2"
COMMANDS = {  # what is tried, {out} is its output
    "init": "init teacher -o {out}",
    "distill": f"distill student --teacher teacher --corpus corpus.txt -o {{out}} {TRAIN}",
    "distill, teacher cache": f"distill student --teacher teacher --corpus corpus.txt -o {{out}} {TRAIN} "
    "--ce-positions masked --alpha-cos 0 --teacher-cache {out}-cache",
    "finetune": f"{TUNE} --task sst2 -o {{out}}",
    "finetune, two seeds": f"{TUNE} --task sst2 --seeds 2 -o {{out}}",
    "eval, predictions": "eval tuned --task custom --text sentence --label label --data rows --write-predictions {out}",
    "eval, examples": "eval student --against teacher --agreement corpus.txt --examples {out}.jsonl --plot {out}.svg",
    "predict": "predict tuned --data rows/validation.jsonl -o {out}.jsonl",
    "bench": "bench student --devices cpu --batch-sizes 1 --seq-lengths 16 --runs 4 -o {out}",
    "export": "export student -o {out}",
    "report": "report tuned student -o {out}",
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and what it wrote to stderr."""

    code: int
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The error lines; a traceback counts too."""
        return [line for line in self.stderr.splitlines() if line.startswith(("distilkit: error", "Traceback"))]


def start(words: list[str], prepare: Callable[[], object] = lambda: None, stdout: str = os.devnull) -> tuple[int, int]:
    """Run distilkit in a child; return its process id and the end of a pipe with its stderr."""
    read, write = os.pipe()
    if process := os.fork():
        os.close(write)
        return process, read
    os.close(read)
    code = 70
    try:
        os.dup2(write, 2)
        os.dup2(os.open(stdout, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        prepare()
        sys.argv = ["distilkit", *words]
        distilkit.__main__.main()
        code = 0
    except SystemExit as done:
        code = int(done.code or 0)
    except BaseException:  # noqa: BLE001 - the interpreter does the same
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(process: int, pipe: int) -> Ended:
    """Wait for a child; return how it ended."""
    with os.fdopen(pipe, errors="replace") as stderr:
        text = stderr.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text)


def run(words: list[str], **settings: Any) -> Ended:
    """Run distilkit to its end."""
    return wait(*start(words, **settings))


def digest(*places: Path) -> str:
    """Hash the names and contents of files."""
    found = hashlib.sha256()
    for path in sorted(file for place in places for file in (place.rglob("*") if place.is_dir() else [place])):
        saved = path.match("eval-*.json") or path.match("bench-*.json")  # eval and bench save their records there
        if path.is_file() and not saved:
            found.update(str(path).encode() + path.read_bytes())
    return found.hexdigest()


def make_inputs() -> None:
    """Write a text, rows, a tiny BERT, its student and a fine-tuned one into the current folder."""
    words = TEXT.split()
    chance = random.Random(0)  # noqa: S311 - not for cryptography
    lines = [" ".join(chance.choices(words, k=12)) for _ in range(400)]
    Path("corpus.txt").write_text("\n".join(lines) + "\n")
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(lines, vocab_size=120, show_progress=False)
    tokenizer = BertTokenizer(vocab=trainer.get_vocab(), model_max_length=64)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertForMaskedLM(config).save_pretrained("teacher")
    tokenizer.save_pretrained("teacher")
    Path("rows").mkdir()
    for split, count in (("train", 40), ("validation", 20)):
        rows = [json.dumps({"sentence": line, "label": n % 2}) + "\n" for n, line in enumerate(lines[:count])]
        Path(f"rows/{split}.jsonl").write_text("".join(rows))
    custom = f"{TUNE} --task custom --text sentence --label label -o tuned"
    for line in ("init teacher -o student", custom):
        done = run(line.split())
        assert done.code == 0, done.stderr


class Trial:
    """One disturbed run of a command: its output, and what is wrong afterwards."""

    def __init__(self, name: str, number: int, inputs: str) -> None:
        self.name, self.inputs = name, inputs
        self.out = f"out-{number}"
        self.words = COMMANDS[name].format(out=self.out).split()
        self.wrong: list[str] = []

    def files(self) -> list[Path]:
        """Return what lies in the output, without the lock of a killed run and the teacher cache."""
        places = [Path(self.out), Path(f"{self.out}.jsonl"), Path(f"{self.out}.svg")]
        found = [file for place in places if place.exists() for file in (place, *place.rglob("*"))]
        return [path for path in found if path.name != LOCK]

    def check(self, ended: Ended, *, killed: bool) -> None:
        """Note what is wrong after a run that was disturbed."""
        if "Traceback" in ended.stderr:
            self.wrong.append("a traceback")
        if ended.code == 1 and len(ended.lines) != 1:
            self.wrong.append("not one error line")
        if ended.code not in (0, 1, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT):
            self.wrong.append(f"exit code {ended.code}")
        resumable = any(Path(self.out).glob("**/run.json")) or any(Path(self.out).glob("*/distilkit.json"))
        if ended.code in (1, 130) and not killed and self.files() and not resumable:
            self.wrong.append(f"left {', '.join(path.name for path in self.files()[:3])}")
        if digest(*map(Path, ("teacher", "student", "tuned", "rows", "corpus.txt"))) != self.inputs:
            self.wrong.append("inputs changed")

    def recover(self, expected: bytes | None) -> None:
        """Continue, or start again: it works, with the weights of an undisturbed run, or is refused in one line."""
        trains = self.words[0] in ("distill", "finetune")
        finished = (Path(self.out) / "distilkit.json").exists()
        done = run([*self.words, *(["--resume"] if trains else [])])
        used = not trains and any(path.is_file() or path.name == ".partial" for path in self.files())
        allowed = (1,) if finished else (0, 1) if used else (0,)
        if done.code not in allowed or "Traceback" in done.stderr or (done.code == 1 and len(done.lines) != 1):
            self.wrong.append(f"recovery: exit code {done.code}, {' '.join(done.lines)[:120]}")
        weights = Path(self.out) / "model.safetensors"
        if expected and done.code == 0 and weights.read_bytes() != expected:
            self.wrong.append("other weights than without a kill")
        left = [path.name for path in Path(self.out).glob("**/*") if path.name.endswith((".partial", LOCK))]
        if done.code == 0 and left:
            self.wrong.append(f"left {left[0]} after recovery")

    def clean(self) -> None:
        """Remove the output."""
        for path in Path().glob(f"{self.out}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def limit(size: int) -> None:
    """Let no file grow beyond a size, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def disturb(trial: Trial, after: float, act: Callable[[int], object]) -> Ended:
    """Start a command, act on it after some seconds, and wait for its end."""
    process, pipe = start(trial.words)
    timer = threading.Timer(after, act, [process])
    timer.start()
    ended = wait(process, pipe)
    timer.cancel()
    timer.join()
    return ended


def send(number: int) -> Callable[[int], None]:
    """Return a function that sends a signal to a process, if it still runs."""

    def act(process: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    return act


class Tally:
    """Counts of trials by experiment and command, and what went wrong."""

    def __init__(self) -> None:
        self.trials, self.wrong = Counter[tuple[str, str]](), dict[tuple[str, str], list[str]]()
        self.number = 0

    def trial(self, name: str, inputs: str) -> Trial:
        """Make the next trial."""
        self.number += 1
        return Trial(name, self.number, inputs)

    def add(self, experiment: str, trial: Trial) -> None:
        """Count a trial, and remove its output."""
        self.trials[experiment, trial.name] += 1
        if trial.wrong:
            self.wrong.setdefault((experiment, trial.name), []).extend(trial.wrong)
            print(f"{experiment}, {trial.name}: {'; '.join(trial.wrong)}", file=sys.stderr)
        trial.clean()

    def table(self) -> str:
        """Return the counts as a Markdown table."""
        experiments = list(dict.fromkeys(experiment for experiment, _ in self.trials))
        lines = [f"| command | {' | '.join(experiments)} |", f"|---|{'---|' * len(experiments)}"]
        for name in COMMANDS:
            cells = []
            for experiment in experiments:
                wrong = len(self.wrong.get((experiment, name), ()))
                cells.append(f"{self.trials[experiment, name]}{f' ({wrong} wrong)' if wrong else ''}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        totals = (sum(n for (found, _), n in self.trials.items() if found == experiment) for experiment in experiments)
        return "\n".join([*lines, f"| all | {' | '.join(map(str, totals))} |"])


def try_command(tally: Tally, name: str, inputs: str, kills: int, steps: int, chance: random.Random) -> Iterator[None]:
    """Run all experiments on one command, one at each step of the iteration."""
    whole = tally.trial(name, inputs)
    started = time.monotonic()
    done = run(whole.words)
    took = time.monotonic() - started
    assert done.code == 0, done.stderr
    weights = Path(whole.out) / "model.safetensors"
    expected = weights.read_bytes() if weights.exists() and whole.words[0] == "distill" else None
    largest = max(path.stat().st_size for path in Path().rglob("*") if path.is_file() and whole.out in str(path))
    whole.clean()
    for attempt in range(max(kills, steps)):
        yield kill(tally, tally.trial(name, inputs), attempt, took * (attempt + chance.random()) / kills, expected)
        if attempt < steps:
            yield fill(tally, tally.trial(name, inputs), largest * attempt // steps)
        if attempt in (0, 4, 8):
            yield take_away(tally, tally.trial(name, inputs), took * chance.random())
        if attempt == 1:
            yield race(tally, tally.trial(name, inputs))
        if attempt == 2:
            yield print_to_full(tally, tally.trial(name, inputs))


def kill(tally: Tally, trial: Trial, attempt: int, after: float, expected: bytes | None) -> None:
    """Send a signal at some moment, and continue or start again."""
    number = SIGNALS[attempt % len(SIGNALS)]
    ended = disturb(trial, after, send(number))
    trial.check(ended, killed=number == signal.SIGKILL)
    if ended.code != 0:
        trial.recover(expected)
    tally.add("signals", trial)


def fill(tally: Tally, trial: Trial, size: int) -> None:
    """Let no file grow beyond a size."""
    trial.check(run(trial.words, prepare=lambda: limit(size)), killed=False)
    tally.add("full disks", trial)


def take_away(tally: Tally, trial: Trial, after: float) -> None:
    """Remove the output while the command runs."""
    trial.check(disturb(trial, after, lambda _: shutil.rmtree(trial.out, ignore_errors=True)), killed=True)
    tally.add("removed outputs", trial)


def race(tally: Tally, trial: Trial) -> None:
    """Start two runs into one output: one ends well, the other is refused."""
    both = [wait(*child) for child in [start(trial.words) for _ in range(2)]]
    for ended in both:
        trial.check(ended, killed=True)
    if sorted(ended.code for ended in both) != [0, 1]:
        trial.wrong.append(f"exit codes {[ended.code for ended in both]}")
    tally.add("races", trial)


def print_to_full(tally: Tally, trial: Trial) -> None:
    """Print the record to a device that is full."""
    ended = run([*trial.words, "--json"], stdout="/dev/full")
    if ended.code != 1 or len(ended.lines) != 1:
        trial.wrong.append(f"exit code {ended.code}, {len(ended.lines)} lines")
    tally.add("full stdout", trial)


def main() -> None:
    """Try all commands, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=60, help="Stop after this time.")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    tally, started = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        os.environ["HF_DATASETS_CACHE"] = f"{directory}/cache"
        make_inputs()
        inputs = digest(*map(Path, ("teacher", "student", "tuned", "rows", "corpus.txt")))
        chance = random.Random(0)  # noqa: S311 - not for cryptography
        running = [try_command(tally, name, inputs, given.kills, given.steps, chance) for name in given.only]
        while running and time.monotonic() - started < 60 * given.minutes:
            running = [trials for trials in running if next(trials, StopIteration) is not StopIteration]
        os.chdir("/")
    print(tally.table())
    wrong = sum(map(len, tally.wrong.values()))
    print(
        f"\n{sum(tally.trials.values())} trials, {wrong} promises broken, {(time.monotonic() - started) / 60:.0f} min"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
