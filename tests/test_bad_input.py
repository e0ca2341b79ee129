"""Whatever a user gives that cannot work ends in one line, and nothing is changed, left behind or traced back.

A row is a case: how it is made, the command, the exit code, and a phrase of the line.
"""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from records import write_chain
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from distilkit.claims import LOCK
from distilkit.cli import app
from distilkit.errors import OptionError
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.recipes import COMMANDS
from distilkit.options.spec import fields_of, flag, spec_of
from distilkit.options.values import parse
from distilkit.record import record, write_biography

INIT = "init G/teacher -o o "
DISTILL = "distill G/student --teacher G/teacher --corpus G/corpus.txt -o o --steps 1 --batch-size 2 --seq-length 16 "
CACHED = DISTILL + "--ce-positions masked --alpha-cos 0 --teacher-cache c "
FINETUNE = "finetune G/student --task sst2 --data G/rows --steps 1 -o o "
DISTILL_IN = "distill G/student --teacher G/teacher --corpus texts --steps 1 "
AGREE = "eval G/student --agreement texts "
FOREIGN = "text,label\n" + "".join(f"{chr(0x4E00 + n)}字,{n % 2}\n" for n in range(20))
OWN = "finetune G/student --task custom --data G/rows --steps 1 -o o "
OWN_FILE = "finetune G/student --data r.csv --steps 1 -o o "
PREDICT = "predict G/tuned --data r.csv "
EVAL = "eval G/tuned --task sst2 --data G/rows "
SQUAD = "eval --task squad --data G/squad --predictions p.json "
BENCH = "bench G/tuned --batch-sizes 1 --seq-lengths 8 --runs 2 --devices cpu "
LONG, VERY_LONG = "n" * 300, "n" * 5000


class Case(NamedTuple):
    """A bad input: a name, the command (G: the good inputs), a phrase of the line, how it is made, the exit code."""

    name: str
    words: str
    phrase: str
    make: Callable[[Path], object] = lambda _good: None
    code: int = 1


def text(path: str, content: str | bytes) -> Callable[[Path], object]:
    """Write a file, and the folders above it."""

    def make(_good: Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def both(*makes: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda good: [make(good) for make in makes]


def copy(name: str, to: str = "m") -> Callable[[Path], object]:
    return lambda good: shutil.copytree(good / name, to)


def fifo(path: str) -> Callable[[Path], object]:
    return lambda _good: os.mkfifo(path)


def folder(path: str) -> Callable[[Path], object]:
    return lambda _good: Path(path).mkdir(parents=True)


def link(path: str, target: str) -> Callable[[Path], object]:
    return lambda _good: Path(path).symlink_to(target)


def document(name: str, file: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Copy a good input to m and change one of its JSON files."""

    def make(good: Path) -> None:
        shutil.copytree(good / name, "m")
        content = json.loads(Path("m", file).read_text())
        change(content)
        Path("m", file).write_text(json.dumps(content))

    return make


def last(**changes: Any) -> Callable[[Any], object]:
    """Change parts of the last record: config_x=…, metrics_x=…, or a whole part."""

    def change(records: list[dict[str, Any]]) -> None:
        for name, value in changes.items():
            part, _, key = name.partition("_")
            if key:
                records[-1][part][key] = value
            else:
                records[-1][part] = value

    return change


def manifest(**changes: Any) -> Callable[[Path], object]:
    """Copy the teacher cache to c and change its manifest."""

    def make(good: Path) -> None:
        shutil.copytree(good / "cache", "c")
        found = json.loads(Path("c/manifest.json").read_text())
        Path("c/manifest.json").write_text(json.dumps(found | changes))

    return make


def cached_file(name: str, write: Callable[[Path], object]) -> Callable[[Path], object]:
    """Copy the teacher cache to c and replace a file of it."""

    def make(good: Path) -> None:
        shutil.copytree(good / "cache", "c")
        found = min(Path("c").glob(name))
        found.unlink()
        write(found)

    return make


def save_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


def recipe(content: str) -> Callable[[Path], object]:
    return text("r.toml", content)


USAGE = [
    Case("no such option", INIT + "--layer 2", "No such option", code=2),
    Case("no output", "init G/teacher", "missing option '--output'", code=2),
    Case("no task", "finetune G/student -o o", "missing option '--task or --data'", code=2),
    Case("no task, no record", "eval G/student", "no finetune record: name a task with --task"),
    Case("another program's name", DISTILL + "--learning-rate 1", "--lr", code=2),
    Case("no such task", "finetune G/student --task sst -o o", "did you mean 'sst2'", code=2),
    Case("no such objective", DISTILL + "--objective tripel", "did you mean 'triple'", code=2),
    Case("no such device", BENCH + "--devices gpu", "one of cpu, cuda", code=2),
    Case("text for a number", DISTILL + "--lr fast", "--lr 'fast': give a number", code=2),
    Case("share for a whole number", INIT + "--layers 1.5", "give a whole number", code=2),
    Case("words for a list", INIT + "--keep first", "give a list like 1,2,3", code=2),
    Case("list with a hole", INIT + "--keep 0,,1", "give a list like 1,2,3", code=2),
    Case("negative layer", INIT + "--keep=-1", "from 0", code=2),
    Case("no layers", INIT + "--layers 0", "from 1", code=2),
    Case("nan", DISTILL + "--lr nan", "--lr 'nan': give a number", code=2),
    Case("infinity", FINETUNE + "--epochs inf", "--epochs 'inf': give a number", code=2),
    Case("overflow", DISTILL + "--max-grad-norm 1e999", "give a number", code=2),
    Case("epochs without end", FINETUNE + "--epochs 1e300", "from 0 to 1000000", code=2),
    Case("steps without end", DISTILL.replace("--steps 1 ", f"--steps {10**22} "), "--steps", code=2),
    Case("digits without end", DISTILL.replace("--steps 1 ", f"--steps {'9' * 5000} "), "--steps", code=2),
    Case("batch without end", FINETUNE + f"--batch-size {2**63 - 1}", "from 1 to 1048576", code=2),
    Case("bench batch without end", BENCH + "--batch-sizes 1000000000000", "from 1 to 1048576", code=2),
    Case("runs without end", BENCH + f"--runs {10**20}", "--runs", code=2),
    Case("threads without end", BENCH + "--threads 100000", "from 1 to 1024", code=2),
    Case("seed too large", INIT + f"--seed {2**32}", "from 0 to 4294967295", code=2),
    Case("seeds past the end", FINETUNE + f"--seeds 2 --seed {2**32 - 1}", "--seeds counts past the largest seed"),
    Case("beta of 1", DISTILL + "--adam-beta2 1", "--adam-beta2", code=2),
    Case("beta above 1", FINETUNE + "--adam-beta2 1.5", "--adam-beta2", code=2),
    Case("threshold without end", EVAL + "--null-threshold 1e300", "from -1000000000", code=2),
    Case("share above 1", DISTILL + "--warmup 2", "from 0 to 1", code=2),
    Case("temperature of 0", DISTILL + "--temperature 0", "from 0.001", code=2),
    Case("empty corpus", DISTILL + '--corpus ""', "not empty", code=2),
    Case("empty output", 'init G/teacher -o ""', "not empty", code=2),
    Case("empty model", 'init "" -o o', "not empty", code=2),
    Case("empty recipe", INIT + '--recipe ""', "not empty", code=2),
    Case("empty teacher", EVAL + '--against ""', "not empty", code=2),
    Case("empty list", INIT + '--keep ""', "give a list like 1,2,3", code=2),
    Case("long name", f"init {LONG} -o o", "names of at most 255", code=2),
    Case("very long name", INIT + f"--recipe {VERY_LONG}", "names of at most 255", code=2),
    Case("long output", f"init G/teacher -o {LONG}", "names of at most 255", code=2),
    Case("long path", f"init {'n/' * 3000} -o o", "names of at most 255", code=2),
    Case("long data", FINETUNE + f"--data {LONG}", "names of at most 255", code=2),
    Case("long cache", CACHED + f"--teacher-cache {VERY_LONG}", "names of at most 255", code=2),
    Case("long examples", f"eval G/student --agreement G/corpus.txt --examples {LONG}", "at most 255", code=2),
    Case("newline in a name", 'init "./a\nb" -o o', r"'./a\nb'"),
    Case("escape in a name", 'init "./\x1b[31mred" -o o', r"'./\x1b[31mred'"),
]
RULES = [
    Case("search without text", INIT + "--strategy search", "give a --corpus"),
    Case("search and keep", INIT + "--strategy search --corpus G/corpus.txt --keep 0", "remove --keep"),
    Case(
        "vocabulary of a text in another script",
        INIT + "--vocabulary t.txt",
        "only unknown tokens in 't.txt'",
        text("t.txt", "\u5b57\n" * 9),
    ),
    Case("vocabulary without text", INIT + "--vocabulary 100", "give it as --corpus"),
    Case("more layers than there are", INIT + "--layers 99", "more than the teacher has"),
    Case("layers that are not there", INIT + "--keep 0,99", "--keep takes ascending layer numbers"),
    Case("a layer twice", INIT + "--keep 1,1", "--keep takes ascending layer numbers"),
    Case("a layer of 22 digits", INIT + f"--keep {10**22}", "--keep takes ascending layer numbers"),
    Case("two counts", INIT + "--keep 0 --layers 2", "remove one of them"),
    Case("streaming without an end", DISTILL.replace("--steps 1 ", "") + "--streaming", "--streaming requires --steps"),
    Case("steps and epochs", DISTILL + "--epochs 1", "use either --steps or --epochs"),
    Case("cache at all positions", CACHED + "--ce-positions all", "give --ce-positions masked"),
    Case("output in the text", DISTILL_IN + "-o texts/o", "lies inside the text of --corpus", text("texts/a.txt", "a")),
    Case("examples in the text", AGREE + "--examples texts/e", "lies inside the text", text("texts/a.txt", "a")),
    Case("rows in another script", OWN_FILE, "only unknown tokens", text("r.csv", FOREIGN)),
    Case("cache in the output", CACHED + "--teacher-cache o/c", "inside the output directory"),
    Case("plan and cache", CACHED + "--plan", "cannot be combined"),
    Case("new head for a student", DISTILL + "--new-head", "--new-head requires --objective mlm"),
    Case("blocks too long", DISTILL + "--seq-length 4096", "longer than the model's"),
    Case("blocks for all memory", DISTILL + "--seq-length 1048576", "longer than the model's"),
    Case("bench too long", BENCH + "--seq-lengths 4096", "lower it"),
    Case("control without teacher", EVAL + "--control G/tuned", "give one as --against"),
    Case("text column of a known task", EVAL + "--text a", "require --task custom"),
    Case("custom without columns", "finetune G/student --task custom --data user/rows -o o", "add what is missing"),
    Case("wrong columns", OWN + "--text a --label b", "no column 'a', 'b' in"),
    Case("a split beside validation rows", OWN + "--validation-split 0.2", "--validation-split has no effect"),
    Case("a split of a known task", FINETUNE + "--validation-split 0.2", "require --task custom"),
    Case("rows without labels", OWN_FILE, "which column of 'r.csv' holds the labels", text("r.csv", "a\nb c\n")),
    Case("too few rows", OWN_FILE, "too few for --validation-split", text("r.csv", "text,label\na b,0\nc d,1\n")),
    Case("no such metric", OWN + "--metric f2", "--metric f2 does not fit"),
    Case("a metric of another task", FINETUNE + "--metric pearson", "--metric pearson does not fit --task sst2"),
    Case("class weights of numbers", OWN + "--kind regression --class-weights balanced", "requires one class per row"),
    Case("predict a folder", "predict G/tuned --data G/rows -o o.csv", "is a folder: give one file"),
    Case("predict to nowhere", PREDICT + "-o o.txt", "names no format", text("r.csv", "text\nb c\n")),
    Case("predict no text", PREDICT + "-o o.csv", "holds the texts", text("r.csv", "n\n1\n")),
    Case("predict other columns", PREDICT + "--text a -o o.csv", "no column 'a'", text("r.csv", "text\nb c\n")),
    Case("predict twice", PREDICT + "-o o.csv", "has a column 'prediction'", text("r.csv", "text,prediction\nb c,1\n")),
    Case(
        "predict without a head", "predict G/student --data r.csv -o o.csv", "G/student", text("r.csv", "text\nb c\n")
    ),
    Case("predict over a file", PREDICT + "-o r.csv", "already exists", text("r.csv", "text\nb c\n")),
    Case("predictions and a model", "eval G/tuned " + SQUAD[5:], "remove MODEL", text("p.json", "{}")),
    Case("predictions for sst2", "eval --task sst2 --data G/rows --predictions p", "requires --task squad"),
    Case("odds alone", EVAL + "--null-odds p", "--null-odds requires"),
    Case("examples alone", EVAL + "--examples e", "require --agreement"),
    Case("two models, one folder", "eval a b --task sst2 --write-predictions o", "exactly one MODEL"),
    Case("tracker that is missing", FINETUNE + "--log-with trackio", "--log-with trackio requires a missing package"),
]
RECIPES = [
    Case("no recipe", INIT + "--recipe none", "no recipe 'none'"),
    Case("recipe folder", INIT + "--recipe r", "no recipe 'r'", folder("r")),
    Case("recipe fifo", INIT + "--recipe r", "no recipe 'r'", fifo("r")),
    Case("recipe of bytes", INIT + "--recipe r.toml", "not UTF-8 text", text("r.toml", b"\xff\xfe")),
    Case("recipe of words", INIT + "--recipe r.toml", "is not TOML", recipe("keep it small")),
    Case("recipe of digits", INIT + "--recipe r.toml", "is not TOML", recipe(f"[init]\nseed = {'9' * 5000}")),
    Case("nested recipe", INIT + "--recipe r.toml", "nested too deeply", recipe(f"a = {'[' * 9999}{']' * 9999}")),
    Case("recipe of another tool", INIT + "--recipe r.toml", "give only tables named", recipe("[train]\nlr = 1")),
    Case("recipe without tables", INIT + "--recipe r.toml", "give only tables named", recipe("init = 1")),
    Case("recipe with a typo", DISTILL + "--recipe r.toml", "did you mean 'lr'", recipe("[distill]\nlrr = 1")),
    Case("recipe in a recipe", INIT + "--recipe r.toml", "unknown recipe key 'recipe'", recipe('[init]\nrecipe = "x"')),
    Case("recipe: nan", DISTILL + "--recipe r.toml", "'lr' is nan", recipe("[distill]\nlr = nan")),
    Case("recipe: infinity", DISTILL + "--recipe r.toml", "'warmup' is inf", recipe("[distill]\nwarmup = inf")),
    Case("recipe: text", DISTILL + "--recipe r.toml", "'lr' is 'high'", recipe('[distill]\nlr = "high"')),
    Case("recipe: truth", DISTILL + "--recipe r.toml", "'lr' is True", recipe("[distill]\nlr = true")),
    Case("recipe: number", INIT + "--recipe r.toml", "'dry_run' is 1", recipe("[init]\ndry-run = 1")),
    Case("recipe: date", INIT + "--recipe r.toml", "'corpus' is", recipe("[init]\ncorpus = 2020-01-01")),
    Case("recipe: table", INIT + "--recipe r.toml", "'layers' is {", recipe("[init.layers]\na = 1")),
    Case("recipe: list of text", INIT + "--recipe r.toml", "'keep' is ['a']", recipe('[init]\nkeep = ["a"]')),
    Case("recipe: beta of 1", DISTILL + "--recipe r.toml", "'adam_beta2'", recipe("[distill]\nadam-beta2 = 1.0")),
    Case("recipe: large seed", INIT + "--recipe r.toml", "'seed' is", recipe(f"[init]\nseed = {2**32}")),
    Case("recipe: empty path", INIT + "--recipe r.toml", "not empty", recipe('[init]\ncorpus = ""')),
    Case("recipe: null in a path", INIT + "--recipe r.toml", "at most 255", recipe('[init]\ncorpus = "a\\u0000b"')),
    Case("recipe: escape", INIT + "--recipe r.toml", r"\x1b[31mx", recipe('[init]\n"\\u001b[31mx" = 1')),
    Case("recipes: no such name", "recipes none", "no recipe 'none'"),
    Case("recipes: long name", f"recipes {VERY_LONG}", "no recipe"),
]
OUTPUTS = [
    *(
        Case(f"{words.split()[0]} into {what}", words, phrase, make)
        for words in (INIT, DISTILL, FINETUNE, "report G/chain -o o", "demo -o o")
        for what, phrase, make in (
            ("a used folder", "is not empty", text("o/notes.txt", "mine")),
            ("a file", "is a file", text("o", "mine")),
            ("a folder below a file", "cannot write output directory", both(text("f", "mine"), link("o", "f/o"))),
        )
    ),
    Case("into a killed init", INIT, "is not empty", both(text("o/" + LOCK, ""), text("o/.partial/a", ""))),
    Case("into an interrupted run", DISTILL, "continue it with --resume", text("o/run.json", "{}")),
    Case("resume nothing of ours", DISTILL + "--resume", "not contain an interrupted run", text("o/notes.txt", "mine")),
    Case("resume a finished run", DISTILL + "--resume", "already finished", text("o/distilkit.json", "[]")),
    Case("resume other seeds", FINETUNE + "--seeds 2 --resume", "same --seed and --seeds", text("o/run.json", "{}")),
    Case("output below /proc", "init G/teacher -o /proc/o", "cannot write output directory"),
    Case("examples without a folder", "eval G/student --agreement G/corpus.txt --examples a/b", "create it first"),
    Case("examples that exist", "eval G/student --agreement G/corpus.txt --examples e", "exists", text("e", "")),
    Case("plot that exists", "eval G/student --agreement G/corpus.txt --plot e.svg", "exists", text("e.svg", "")),
    Case("plot of another kind", "eval G/student --agreement G/corpus.txt --plot e.gif", "neither .svg nor .png"),
    Case(
        "predictions that exist", "eval G/tuned --task imdb --data d --write-predictions p", "already exists",
        both(text("p/imdb.tsv", ""), text("d/test.jsonl", '{"text": "a", "label": 0}\n')),
    ),
    Case("predictions in a file", EVAL + "--write-predictions p", "cannot write --write-predictions", text("p", "")),
    Case("cache with other files", CACHED, "contains other files", text("c/notes.txt", "mine")),
    Case("cache in a file", CACHED, "cannot write --teacher-cache", both(text("f", ""), link("c", "f/c"))),
]  # fmt: skip
MODELS = [
    Case("no model", "init ./none -o o", "no checkpoint directory './none'"),
    Case("file for a model", "init ./f -o o", "no checkpoint directory", text("f", "mine")),
    Case("empty folder", "init d -o o", "no config.json", folder("d")),
    Case("second model", "eval G/tuned ./none --task sst2 --data G/rows", "no checkpoint directory './none'"),
    Case("second model of another kind", "eval G/tuned G/student --task sst2 --data G/rows", "G/student'"),
    Case("teacher to compare with", EVAL + "--against ./none", "no checkpoint directory './none'"),
    Case("baseline to compare with", EVAL + "--against G/tuned --control ./none", "no checkpoint directory './none'"),
    Case("second model to bench", "bench G/tuned ./none", "no checkpoint directory './none'"),
    Case("task teacher", FINETUNE + "--teacher ./none", "no checkpoint directory './none'"),
    Case("text teacher", DISTILL + "--teacher ./none", "no checkpoint directory './none'"),
    *(
        Case(
            f"{words[:7]} of no problem type",
            words,
            "m/config.json' has problem_type 'single_label': write one of",
            both(
                text("r.csv", "text,label\nb c,1\nd e,0\n"),
                document("tuned", "config.json", lambda found: found.update(problem_type="single_label")),
            ),
        )
        for words in ("predict m --data r.csv -o o.csv", "eval m --data r.csv --task custom")
    ),
    Case("no recorded teacher", "eval G/student --agreement G/corpus.txt", "specify one with --against"),
    Case("no such label column", "finetune G/student --task custom --data G/rows --text sentence --label x -o o", "x"),
    Case("no data", EVAL.replace("G/rows", "none"), "no folder 'none'"),
    Case("no heldout text", DISTILL + "--heldout ./none", "./none"),
    Case("no corpus", DISTILL.replace("G/corpus.txt", "./none"), "./none"),
]
GATES = [
    Case("gate without a number", EVAL + "--require sst2/accuracy", "write it like"),
    Case("gate of words", EVAL + "--require 'sst2/accuracy>=high'", "write it like"),
    Case("gate without end", EVAL + "--require 'sst2/accuracy>=1e999'", "write it like"),
    Case("gate of signs", EVAL + "--require 'sst2/accuracy>=+-+'", "write it like"),
    Case("gate with a typo", EVAL + "--require 'sst2/acuracy>=0.9'", "give one such as sst2/accuracy"),
    Case("gate of another task", EVAL + "--require 'mrpc/f1>=0.9'", "names no metric"),
    Case("gate on no teacher", EVAL + "--require 'retention>=0.9'", "names no metric"),
    Case("gate of bench with a typo", BENCH + "--require 'speedupp>=2'", "names no metric"),
    Case("gate on one model", BENCH + "--require 'speedup>=2'", "names no metric"),
    Case("gate of finetune on a baseline", OWN_FILE + "--require 'f1_macro>=baseline'", "only eval compares"),
    Case("gate on a class and a baseline", OWN_FILE + "--require 'f1/a>=baseline-0.1'", "only eval compares"),
    Case("gate of bench on a baseline", BENCH + "--require 'speedup>=baseline'", "so give a number"),
    Case("gate of finetune", FINETUNE + "--require 'f1>=0.9'", "names no metric"),
    Case(
        "gate on agreement", "eval G/student --against G/teacher --agreement G/corpus.txt --require 'x>1'", "names no"
    ),
]
HISTORY = "m/distilkit.json"
DAMAGE = {
    "empty": "",
    "cut": '[{"schema": 1',
    "bytes": b"\xff\xff",
    "a number": "7",
    "an object": "{}",
    "numbers": "[1, 2]",
    "nested": "[" * 99999,
    "digits": f"[{'9' * 5000}]",
    "large": b" " * 2**26 + b"1",
}
STARTS = {  # commands that read the history of their model
    "init": "init m -o o",
    "distill": DISTILL.replace("G/student", "m"),
    "finetune": FINETUNE.replace("G/student", "m"),
    "eval": "eval m --agreement G/corpus.txt",
    "report": "report m -o o",
}
SAVED = {  # files that are no record of eval or bench
    "folder": folder("m/eval.json"),
    "fifo": fifo("m/eval.json"),
    "empty": text("m/eval.json", ""),
    "cut": text("m/eval.json", '[{"schema": 1'),
    "another command": text("m/bench.json", '{"command": "init", "config": {}, "metrics": {}}'),
    "a number for models": text("m/eval.json", '{"command": "eval", "config": {"models": 7}, "metrics": {}}'),
    "no models": text("m/bench.json", '{"command": "bench", "config": {"models": []}, "metrics": {}}'),
    "numbers for models": text("m/eval.json", '{"command": "eval", "config": {"models": [7]}, "metrics": {}}'),
}
RECORDS = [
    *(
        Case(f"record: {name}", "report m -o o", phrase, document("tuned", "distilkit.json", change))
        for name, change, phrase in (
            ("no config", last(config=None), "config is None"),
            ("list of options", last(config=[1]), "config is [1]"),
            ("text for a metric", last(**{"metrics_sst2/accuracy": "x"}), "metrics.sst2/accuracy is 'x'"),
            ("truth for a metric", last(metrics_seconds=True), "metrics.seconds is True"),
            ("metric without end", last(metrics_seconds=10**400), "metrics.seconds is 1000"),
            ("list of facts", last(environment=[1]), "environment is [1]"),
            ("nested fact", last(environment={"torch": {}}), "environment.torch is {}"),
            ("word for seeds", last(config_seeds="many"), "config.seeds is 'many'"),
            ("seeds without end", last(config_seeds=10**30), "config.seeds is 1000"),
            ("number for a model", last(config_model=7), "config.model is 7"),
            ("number for an output", last(config_output=7), "config.output is 7"),
            ("null in an output", last(config_output="a\0b"), "config.output is 'a"),
            ("half a letter", last(config_data="a\ud800b"), "config.data is 'a"),
            ("long output", last(config_output=LONG), "config.output is 'nnn"),
            ("number for a column", last(config_text=[1]), "config.text is [1]"),
            ("dict for a task", last(config_task={}), "config.task is {}"),
            ("number for a command", last(command=3), "command is 3"),
            ("word for a schema", last(schema="new"), "schema is 'new'"),
            ("word for what was given", last(given="x"), "given is 'x'"),
        )
    ),
    *(
        Case(f"distilkit.json: {name}", "report m -o o", "is damaged", both(copy("tuned"), text(HISTORY, bad)))
        for name, bad in DAMAGE.items()
    ),
    *(
        Case(f"damaged history: {name}", words, "is damaged", both(copy("student"), text(HISTORY, "{")))
        for name, words in STARTS.items()
    ),
    *(
        Case(f"eval.json: {name}", "report m -o o", "is not a record of eval or bench", both(copy("tuned"), make))
        for name, make in SAVED.items()
    ),
    Case("report of no record", "report G/teacher -o o", "no records in"),
    Case("report of nothing", "report d -o o", "no records in", folder("d")),
    Case("report of no folder", "report ./none -o o", "does not exist"),
    Case("weights are a broken link", "report m -o o", "model.safetensors'", both(
        copy("tuned"), lambda _: Path("m/model.safetensors").unlink(), link("m/model.safetensors", "nowhere"))),
    Case("damaged weights", "report m -o o", "cannot be read", both(copy("tuned"), text("m/model.safetensors", "x"))),
    Case("card over a folder", "report m -o o --card", "is not a file", both(copy("tuned"), folder("m/README.md"))),
    Case("card over a text", "report m -o o --card", "--force", both(copy("tuned"), text("m/README.md", "mine"))),
    Case("card of no checkpoint", "report G/chain -o o --card --recipe r", "no recipe 'r'"),
]  # fmt: skip
CACHES = [
    Case("cache: text for a seed", CACHED, "seed is 'x'", manifest(seed="x")),
    Case("cache: negative seed", CACHED, "seed is -1", manifest(seed=-1)),
    Case("cache: seed without end", CACHED, "seed is 1000", manifest(seed=10**30)),
    Case("cache: no tokens", CACHED, "tokens is None", manifest(tokens=None)),
    Case("cache: 0 tokens", CACHED, "tokens is 0", manifest(tokens=0)),
    Case("cache: text for a cost", CACHED, "asked is 'x'", manifest(asked="x")),
    Case("cache: nested cost", CACHED, "fill_seconds is []", manifest(fill_seconds=[])),
    Case("cache: another version", CACHED, "another version", manifest(schema=99)),
    Case("cache: another teacher", CACHED, "another teacher", manifest(teacher="x")),
    Case("cache: another text", CACHED, "another text", manifest(corpus=1)),
    Case("cache: another length", CACHED, "--seq-length 8", manifest(seq_length=8)),
    Case("cache: dense", CACHED, "--cache-logits full", manifest(cache_logits="full")),
    Case("cache: list", CACHED, "cannot be read", both(folder("c"), text("c/manifest.json", "[]"))),
    Case("cache: empty", CACHED, "cannot be read", both(folder("c"), text("c/manifest.json", ""))),
    Case("cache: folder", CACHED, "cannot be read", folder("c/manifest.json")),
    Case("cache: fifo", CACHED, "cannot be read", both(folder("c"), fifo("c/manifest.json"))),
    *(
        Case(f"cache: {name} {pattern}", CACHED, "is damaged: delete it", cached_file(pattern, write))
        for pattern in ("part-*.npy", "heldout-*.npy")
        for name, write in (
            ("several arrays in", save_npz),
            ("empty", Path.touch),
            ("folder for", Path.mkdir),
            ("objects in", lambda path: np.save(path.open("wb"), np.array([{}]), allow_pickle=True)),
            ("texts in", lambda path: np.save(path.open("wb"), np.array(["a"]))),
        )
    ),
]
PREDICTIONS = [
    *(
        Case(f"predictions: {name}", SQUAD, phrase, make)
        for name, phrase, make in (
            ("none", "does not exist", lambda _: None),
            ("folder", "cannot be read", folder("p.json")),
            ("empty", "cannot be read", text("p.json", "")),
            ("cut", "cannot be read", text("p.json", '{"q0": "a"')),
            ("bytes", "not UTF-8", text("p.json", b'{"q0": "\xff"}')),
            ("list", "not a JSON object", text("p.json", "[]")),
            ("numbers", "not a JSON object", text("p.json", '{"q0": 1}')),
            ("nulls", "not a JSON object", text("p.json", '{"q0": null}')),
            ("of other questions", "has none of the questions", text("p.json", '{"x": "a"}')),
            ("of no question", "has none of the questions", text("p.json", "{}")),
        )
    ),
]
NUMBERS = [
    (command, item, kind)
    for command, options_class in COMMANDS.items()
    for item, kind in fields_of(options_class)
    if kind in (int, float)
]
CASES = [*USAGE, *RULES, *RECIPES, *OUTPUTS, *MODELS, *GATES, *RECORDS, *CACHES, *PREDICTIONS]


@pytest.fixture(scope="module")
def good(
    tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path], teacher: Path, corpus: Path
) -> Path:
    """Inputs that work: models, rows, a text, records and a teacher cache."""
    root = tmp_path_factory.mktemp("good")
    names = {0: "negative", 1: "positive"}
    labels = {"id2label": names, "label2id": {label: i for i, label in names.items()}}
    tuned = make_checkpoint("bert", 2, AutoModelForSequenceClassification, **labels)
    for name, source in (("teacher", teacher), ("student", make_checkpoint("bert", 2, seed=1)), ("tuned", tuned)):
        shutil.copytree(source, root / name)
    shutil.copy(corpus, root / "corpus.txt")
    (root / "rows").mkdir()
    for split in ("train", "validation"):
        rows = [{"sentence": f"the text {n} returns a string", "label": n % 2} for n in range(8)]
        (root / f"rows/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "squad").mkdir()
    answers = {"text": ["text"], "answer_start": [4]}
    questions = [{"id": f"q{n}", "question": "what?", "context": "the text", "answers": answers} for n in range(4)]
    (root / "squad/validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    options = FinetuneOptions(model=str(root / "student"), task="sst2", data=root / "rows", output=root / "tuned")
    write_biography(root / "tuned", [record("finetune", options, {"sst2/accuracy": 0.5, "seconds": 3.0})])
    write_chain(root / "chain")
    monkey = pytest.MonkeyPatch()
    monkey.chdir(root)
    done = CliRunner().invoke(app, shlex.split(CACHED.replace("G/", f"{root}/").replace("cache c", "cache cache")))
    monkey.undo()
    assert done.exit_code == 0, done.output
    shutil.rmtree(root / "o")
    return root


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Return what lies below a folder: names, sizes and times of change."""
    found = {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}
    return {name: (0 if Path(root, name).is_dir() else at.st_size, at.st_mtime_ns) for name, at in found.items()}


def check_refused(words: list[str], code: int, phrase: str, *roots: Path) -> None:
    """Run a command that cannot work: one line, no traceback, nothing changed and nothing left."""
    before = [tree(root) for root in roots]
    done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    if code == 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("distilkit: error: ")]
        assert len(lines) == 1
        assert done.stderr.splitlines()[-1] == lines[0]
        assert len(lines[0]) < 1100
        assert phrase in lines[0]
    else:
        assert " ".join(phrase.split()) in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    for root, then in zip(roots, before, strict=True):
        now = tree(root)
        assert {name for name in now if now[name] != then.get(name) and not Path(root, name).is_dir()} == set()
        assert now.keys() == then.keys()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_line(
    case: Case, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """The exit code and a phrase of the line are those of the row; inputs are untouched, and nothing is left."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 1000)
    case.make(good)
    words = [word.replace("G/", f"{good}/") for word in shlex.split(case.words)]
    check_refused(words, case.code, case.phrase.replace("G/", f"{good}/"), tmp_path / "here", good)


def test_there_are_many_cases() -> None:
    """Over all commands."""
    assert len({case.name for case in CASES}) == len(CASES) >= 200
    assert {case.words.split()[0] for case in CASES} >= COMMANDS.keys() - {"export"}


@pytest.mark.parametrize(("command", "item", "kind"), NUMBERS, ids=lambda part: getattr(part, "name", part))
def test_no_number_is_too_odd(command: str, item: Any, kind: Any) -> None:
    """Every numeric option refuses text, nan, infinities and numbers that are too long, as wrong usage."""
    for value in ("nan", "inf", "-inf", "1e400", "9" * 5000, "1" + "0" * 22, "-1e300", "x", "", " ", "0x1", "1e999"):
        if not (kind is float and value == "1" + "0" * 22 and (spec_of(item).max or 0) > 1e22):
            with pytest.raises(OptionError, match=flag(item.name)):
                parse(item, kind, value)
    assert spec_of(item).max is not None
