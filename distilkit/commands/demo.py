"""`demo`: the whole chain, offline, on the documentation that comes with Python."""

import ast
import inspect
import json
import random
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, PreTrainedTokenizerBase

from distilkit.commands.bench import bench
from distilkit.commands.distill import distill
from distilkit.commands.evaluate import evaluate
from distilkit.commands.finetune import finetune
from distilkit.commands.init import init
from distilkit.encoders import checkpoint
from distilkit.encoders.sizes import weights_bytes
from distilkit.files import claim, write_text
from distilkit.options.bench import BenchOptions
from distilkit.options.declare import command_line
from distilkit.options.distill import DistillOptions
from distilkit.options.init import InitOptions
from distilkit.options.report import DemoOptions
from distilkit.options.tasks import EvalOptions, FinetuneOptions
from distilkit.options.training import CommonOptions
from distilkit.progress import say
from distilkit.record import Record, json_text, record, write_biography

# Which part of the library a paragraph documents; the language reference is the part "language".
AREAS = {
    "network": "asyncio email ftplib http imaplib poplib smtplib socket socketserver ssl urllib wsgiref xmlrpc",
    "windows": "tkinter turtle",
    "numbers": "_pydecimal decimal fractions statistics random datetime _pydatetime numbers ipaddress",
    "files": "io _pyio os pathlib shutil tarfile zipfile tempfile mailbox gzip csv json pickle shelve glob xml",
    "testing": "unittest doctest pdb bdb trace cProfile timeit logging",
    "imports": "importlib inspect pkgutil zipimport runpy modulefinder distutils ast typing",
}
SKIPPED = {"test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo"}
FEWEST_WORDS = 8
WORDS_LEARNT = 4000
HELDOUT_SHARE, VALIDATION_SHARE = 0.05, 0.15
MODELS = ("teacher", "student", "control")


def demo(config: DemoOptions, say: Callable[[str], None] = say) -> Record:
    """Train a small teacher from scratch, distil it, and compare teacher, student and baseline.

    Before each step, `say` gets the command line that does the same.
    """
    output = config.output or Path(tempfile.mkdtemp(prefix="distilkit-demo-"))
    with claim(output) as out:
        write_data(out, config.seed)
        say(f"# Wrote Python's documentation as text to {out}/corpus.txt and an untrained BERT to {out}/untrained")
        write_untrained(out)
        done = {}
        for name, command, step in steps(out, config.seed):
            say(f"\n$ {command_line(command.__name__.replace('evaluate', 'eval'), step)}")
            done[name] = command(step)
            if name in ("eval", "bench"):  # these commands write no checkpoint that could hold their record
                write_text(out / f"{name}.json", json_text(done[name].to_json()))
        say(f"\nEverything is in {out}: {', '.join(sorted(p.name for p in out.iterdir()))}\n")
        summary = record("demo", replace(config, output=out), summarize(out, done))
        write_biography(out, [summary])
    return summary


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
    yield "eval", evaluate, EvalOptions(models=tuned_models, against=tuned_models[0], **task)
    yield (
        "bench",
        bench,
        BenchOptions(models=tuned_models, devices=("cpu",), batch_sizes=(1,), seq_lengths=(64,), seed=seed),
    )


def summarize(out: Path, done: dict[str, Record]) -> dict[str, float]:
    """Collect the metrics of each model for the final table."""
    scores, speeds = done["eval"].metrics, done["bench"].metrics
    metrics: dict[str, float] = {}
    for place, model in enumerate(MODELS):
        metrics |= {
            f"{model}/parameters": done[model].metrics["parameters"],
            f"{model}/bytes": float(weights_bytes(out / model)),
            f"{model}/heldout_loss": done[model].metrics["heldout_loss"],
            f"{model}/accuracy": scores[f"{place}/custom/accuracy"],
            f"{model}/retention": scores[f"{place}/retention/custom"],
            f"{model}/latency_ms_p50": speeds[f"{place}/cpu/fp32/b1/l64/latency_ms_p50"],
        }
    return metrics


def write_data(out: Path, seed: int) -> None:
    """Write corpus.txt and heldout.txt, one paragraph per line, and the labelled train.jsonl and validation.jsonl."""
    paragraphs = list(dict.fromkeys(documentation()))
    random.Random(seed).shuffle(paragraphs)  # noqa: S311 - nothing secret here
    heldout = int(HELDOUT_SHARE * len(paragraphs))
    for name, part in (("heldout.txt", paragraphs[:heldout]), ("corpus.txt", paragraphs[heldout:])):
        (out / name).write_text("".join(text + "\n" for _, text in part), encoding="utf-8")
    rows = [{"text": text, "label": area} for area, text in paragraphs if area]
    validation = int(VALIDATION_SHARE * len(rows))
    for name, part_rows in (("validation.jsonl", rows[:validation]), ("train.jsonl", rows[validation:])):
        (out / name).write_text("".join(json.dumps(row) + "\n" for row in part_rows), encoding="utf-8")


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
    except (SyntaxError, UnicodeDecodeError):  # the library carries a few files that are broken on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def paragraphs_of(text: str) -> Iterator[str]:
    """Yield the paragraphs that are long enough to be useful."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        words = paragraph.split()
        if len(words) >= FEWEST_WORDS:
            yield " ".join(words)


def write_untrained(out: Path) -> None:
    """Train a WordPiece tokenizer on the corpus; write it with a small, randomly initialised BERT."""
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train([str(out / "corpus.txt")], vocab_size=WORDS_LEARNT, show_progress=False)
    tokenizer: PreTrainedTokenizerBase = BertTokenizer(vocab=trainer.get_vocab(), model_max_length=128)
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
