"""`demo`: the whole chain, offline, on the documentation that comes with Python."""

import ast
import inspect
import json
import random
import re
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, PreTrainedTokenizerBase

from distilkit.claims import claim
from distilkit.commands.bench import bench
from distilkit.commands.distill import distill
from distilkit.commands.evaluate import evaluate
from distilkit.commands.finetune import finetune
from distilkit.commands.init import init
from distilkit.commands.report import report
from distilkit.encoders import checkpoint
from distilkit.encoders.sizes import weights_bytes
from distilkit.files import write_text
from distilkit.options.bench import BenchOptions
from distilkit.options.declare import command_line
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.options.report import DemoOptions, ReportOptions
from distilkit.options.training import CommonOptions
from distilkit.progress import say
from distilkit.record import Record, json_text, record, write_biography

# The label of a paragraph is the area of the module that it documents. The language reference has the label "language".
AREAS = {
    "network": "asyncio email ftplib http imaplib poplib smtplib socket socketserver ssl urllib wsgiref xmlrpc",
    "windows": "tkinter turtle",
    "numbers": "_pydecimal decimal fractions statistics random datetime _pydatetime numbers ipaddress",
    "files": "io _pyio os pathlib shutil tarfile zipfile tempfile mailbox gzip csv json pickle shelve glob xml",
    "testing": "unittest doctest pdb bdb trace cProfile timeit logging",
    "imports": "importlib inspect pkgutil zipimport runpy modulefinder distutils ast typing",
}
SKIPPED = {"test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo"}
MIN_WORDS = 8
VOCABULARY_TOKENS, LONGEST_END = 4000, 6
HELDOUT_SHARE, VALIDATION_SHARE = 0.05, 0.15
MODELS = ("teacher", "student", "control")
PURPOSES = {
    "teacher": "Train the teacher by masked LM.",
    "init": "Extract a student with half of the teacher's layers.",
    "student": "Distil: train the student with its teacher.",
    "control": "Train the same student without the teacher, as a baseline.",
    "teacher-tuned": "Fine-tune all three on a task: which area of the library a paragraph documents.",
    "eval": "Compare student and baseline with the teacher.",
    "bench": "Measure size and speed.",
    "report": "Put everything on one page.",
}


def demo(options: DemoOptions, say: Callable[[str], None] = say) -> Record:
    """Train a small teacher from scratch, distil it, and compare teacher, student and baseline.

    `say` receives the purpose and the command line of each step before it runs.
    """
    output = options.output or Path(tempfile.mkdtemp(prefix="distilkit-demo-"))
    with claim(output) as out:
        write_data(out, options.seed)
        write_untrained(out)
        say(f"# Corpus (Python's documentation): {out}/corpus.txt\n# Randomly initialised BERT: {out}/untrained")
        done = {}
        for name, command, step in steps(out, options.seed):
            purpose = f"# {PURPOSES[name]}\n" if name in PURPOSES else ""
            say(f"\n{purpose}$ {command_line(command.__name__.replace('evaluate', 'eval'), step)}")
            done[name] = command(step)
            if name in ("eval", "bench"):  # these commands write no checkpoint that could hold their record
                write_text(out / f"{name}.json", json_text(done[name].to_json()))
        say("\n" + "\n".join(sentences(done)))
        say(f"\nAll files are in {out}; the page is {out / 'report' / 'report.html'}\n")
        summary = record("demo", replace(options, output=out), summarise(out, done))
        write_biography(out, [summary])
    return summary


def write_data(out: Path, seed: int) -> None:
    """Write corpus.txt and heldout.txt, one paragraph per line, and train.jsonl and validation.jsonl with labels."""
    paragraphs = list(dict.fromkeys(documentation()))
    random.Random(seed).shuffle(paragraphs)  # noqa: S311 - not for cryptography
    heldout = int(HELDOUT_SHARE * len(paragraphs))
    for name, some in (("heldout.txt", paragraphs[:heldout]), ("corpus.txt", paragraphs[heldout:])):
        write_text(out / name, "".join(text + "\n" for _, text in some))
    rows = [{"text": text, "label": area} for area, text in paragraphs if area]
    validation = int(VALIDATION_SHARE * len(rows))
    for name, some_rows in (("validation.jsonl", rows[:validation]), ("train.jsonl", rows[validation:])):
        write_text(out / name, "".join(json.dumps(row) + "\n" for row in some_rows))


def documentation() -> Iterator[tuple[str, str]]:
    """Yield (area, paragraph) from the language reference and all docstrings of the standard library."""
    for text in topics.values():
        yield from (("language", paragraph) for paragraph in paragraphs_of(text))
    area_of = {module: area for area, modules in AREAS.items() for module in modules.split()}
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if not SKIPPED & set(parts):
            area = area_of.get(parts[0], "")
            yield from ((area, paragraph) for text in docstrings(path) for paragraph in paragraphs_of(text))


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a source file without importing it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # the library has a few invalid files for its own tests
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def paragraphs_of(text: str) -> Iterator[str]:
    """Yield the paragraphs of at least MIN_WORDS words, each on one line."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        words = paragraph.split()
        if len(words) >= MIN_WORDS:
            yield " ".join(words)


def write_untrained(out: Path) -> None:
    """Make a WordPiece tokenizer of the corpus, and write it with a small, randomly initialised BERT."""
    vocabulary = {token: number for number, token in enumerate(wordpieces((out / "corpus.txt").read_text("utf-8")))}
    tokenizer: PreTrainedTokenizerBase = BertTokenizer(vocab=vocabulary, model_max_length=128)
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    checkpoint.save(model, tokenizer, out / "untrained")


def wordpieces(text: str) -> list[str]:
    """Return a WordPiece vocabulary: characters, then the most frequent words and ends of the other words.

    The trainers of the tokenizers library break ties by chance, so no two of their vocabularies are the same.
    """
    words = Counter(re.findall(r"\w+|[^\w\s]", text.lower()))
    letters = sorted({letter for word in words for letter in word})
    frequent = [word for word, _ in sorted(words.items(), key=lambda entry: (-entry[1], entry[0])) if len(word) > 1]
    whole, rest = frequent[: VOCABULARY_TOKENS // 2], frequent[VOCABULARY_TOKENS // 2 :]
    ends = Counter[str]()
    for word in rest:
        for length in range(2, min(len(word), LONGEST_END + 1)):
            ends[f"##{word[-length:]}"] += words[word]
    common = [end for end, _ in sorted(ends.items(), key=lambda entry: (-entry[1], entry[0]))]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters), *whole, *common]
    return list(dict.fromkeys(tokens))[:VOCABULARY_TOKENS]


def steps(out: Path, seed: int) -> Iterator[tuple[str, Callable[[Any], Record], CommonOptions]]:
    """Yield the steps of the chain: name, command and options."""
    corpus: dict[str, Any] = {
        "corpus": f"{out}/corpus.txt", "heldout": f"{out}/heldout.txt", "seq_length": 64, "seed": seed,
        "evaluate_every": 175, "max_grad_norm": 1.0,
    }  # fmt: skip
    teacher = DistillOptions(
        student=f"{out}/untrained", objective="mlm", steps=350, lr=2e-3, output=out / "teacher", **corpus
    )
    yield "teacher", distill, teacher
    yield "init", init, InitOptions(teacher=f"{out}/teacher", output=out / "extracted", seed=seed)
    trained: dict[str, Any] = corpus | {"student": f"{out}/extracted", "steps": 120}
    yield "student", distill, DistillOptions(output=out / "student", **trained)
    yield "control", distill, DistillOptions(output=out / "control", objective="mlm", **trained)
    task: dict[str, Any] = {
        "task": "custom", "data": out, "text": ("text",), "label": "label", "max_length": 64, "seed": seed,
    }  # fmt: skip
    for model in MODELS:
        tuned = FinetuneOptions(model=f"{out}/{model}", output=out / f"{model}-tuned", lr=5e-4, epochs=1.0, **task)
        yield f"{model}-tuned", finetune, tuned
    tuned_models = tuple(f"{out}/{model}-tuned" for model in MODELS)
    yield "eval", evaluate, EvalOptions(models=tuned_models, against=tuned_models[0], control=tuned_models[2:], **task)
    yield (
        "bench",
        bench,
        BenchOptions(models=tuned_models, devices=("cpu",), batch_sizes=(1,), seq_lengths=(64,), seed=seed),
    )
    yield "report", report, ReportOptions(directories=(str(out),), output=out / "report", seed=seed)


def sentences(done: dict[str, Record]) -> Iterator[str]:
    """Yield what was shown, in three sentences: size and speed, text, task."""
    scores, speeds, parts = done["eval"].metrics, done["bench"].metrics, [done[m].metrics for m in MODELS]
    ours, theirs = parts[1]["parameters"], parts[0]["parameters"]
    yield (
        f"The student has {ours / theirs:.0%} of the teacher's parameters and is {speeds['1/speedup']:.1f} times as "
        "fast."
    )
    losses = [f"{metrics['heldout_loss']:.3f}" for metrics in parts]
    yield (
        f"On held-out text its masked-LM loss is {losses[1]}: the teacher has {losses[0]}, and the baseline, trained "
        f"without the teacher, {losses[2]} (lower is better)."
    )
    low, high = (scores[f"1/difference/custom/control/{end}"] for end in ("low", "high"))
    significant = "which is significant" if low > 0 or high < 0 else "so chance explains it"
    interval = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    yield (
        f"On the task it keeps {scores['1/retention/custom']:.0%} of the teacher's accuracy; its difference to the "
        f"baseline is {100 * scores['1/difference/custom/control']:+.1f} points ({interval}), {significant}: minutes "
        "of training show how the tools work, not what distillation is worth."
    )


def summarise(out: Path, done: dict[str, Record]) -> dict[str, float]:
    """Return the metrics of each model for the final table."""
    scores, speeds = done["eval"].metrics, done["bench"].metrics
    metrics: dict[str, float] = {}
    for position, model in enumerate(MODELS):
        metrics |= {
            f"{model}/parameters": done[model].metrics["parameters"],
            f"{model}/bytes": float(weights_bytes(out / model)),
            f"{model}/heldout_loss": done[model].metrics["heldout_loss"],
            f"{model}/accuracy": scores[f"{position}/custom/accuracy"],
            f"{model}/retention": scores[f"{position}/retention/custom"],
            f"{model}/latency_ms_p50": speeds[f"{position}/cpu/fp32/b1/l64/latency_ms_p50"],
        }
    return metrics
