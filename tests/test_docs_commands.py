"""Every command block of README.md and docs/ runs, a page from top to bottom in a directory of its own.

Models, texts and rows are tiny stand-ins under the names that the pages use, so nothing is downloaded.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from transformers import AutoModel
from typer.testing import CliRunner

from distilkit.cli import app

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / "examples/github-actions.yml"

# Long commands are cut down here and nowhere else: these options are appended, so they win over those on the page.
CUT = {
    "distill": "--steps 1 --batch-size 2 --seq-length 32",
    "finetune": "--steps 1 --batch-size 2 --max-length 32",
    "bench": "--runs 2 --batch-sizes 1 --seq-lengths 16",
}
CUT_IF_GIVEN = {
    "--seeds": "2",
    "--vocabulary 8000": "200",
    "--max-drop": "1",
    "--layers 4,6,8": "1,2",
}  # only where the page has the option
CUT_SQUAD = "--max-length 64 --stride 16"  # a window must be longer than its stride

# Commands that cannot run here, by how they begin or by an option, with the reason.
NOT_RUN = {
    "pipx install": "needs a network",
    "pip install": "needs a network",
    "python3 -m venv": "makes an environment without packages",
    ". venv/bin/activate": "belongs to the environment above",
    "distilkit demo": "takes minutes; tests/ run the demo on their own",
    "accelerate launch": "starts several processes; the tests of processes and of sharding do that",
    "python examples/benchmarks": "takes minutes",
    "tensorboard": "is a server, and not installed",
    "--log-with tensorboard": "needs tensorboard, which is not installed",
}

FIRST_PAGES = ("README.md", "docs/index.md", "docs/tutorial.md", "docs/cli.md", "docs/how-to/classifier.md")
LONG_SECTIONS = ("docs/cli.md:distilkit bench", "docs/cli.md:distilkit export")  # they export models: a minute
BY_SECTION = {"README.md", "results.md", "cli.md"}  # their sections begin anew; other pages are one story
PLACEHOLDERS = {"MODEL": "teacher", "TASK": "mrpc"}  # of docs/results.md, where a comment may name the task
TAGS = ["B-PER", "O", "O", "O"]
TEXTS = (
    "text/a.txt", "german/a.txt", "Salesforce/wikitext:wikitext-2-raw-v1/a.txt", "train.txt", "heldout.txt", "held.txt",
    "text.txt", "sentences.txt", "wikipedia-train.txt", "wikipedia-heldout.txt",
)  # fmt: skip
# What a page takes for granted: a copy of this, from the page's own directory or else from the shared one.
COPIES = {
    "student1": "student0",
    "tickets": "tasks/tickets",
    "entities": "tasks/entities",
    "teacher-entities": "student-entities",
    "student-tickets": "student-sst2",
    "teacher": "bert-base-uncased",
    "minilm-l6": "bert-base-uncased",
    "models/teacher": "bert-base-uncased",
    **{f"{name}-encoder": "sentence-transformers/all-MiniLM-L6-v2" for name in ("teacher", "student")},
    **{f"{name}-sst2": "student-sst2" for name in ("extracted", "control")},
    **{f"{name}-mrpc": "teacher-mrpc" for name in ("student", "extracted", "control")},
    **{f"tuned/{name}/mrpc": "tuned/teacher/mrpc" for name in ("student", "extracted", "control")},
    "tuned/student/sst2": "tuned/teacher/sst2",
}


def blocks(text: str) -> list[str]:
    """Return the commands of a page's ```sh blocks, a line each."""
    found = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(found).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def stories() -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that belong together: those of a page, or of a section of the pages in BY_SECTION."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        parts = re.split(r"^(?=## )", text, flags=re.MULTILINE) if path.name in BY_SECTION else [text]
        for part in parts:
            if commands := blocks(part):
                yield f"{name}:{part.splitlines()[0].strip('# ')}" if len(parts) > 1 else name, commands


def reason(line: str) -> str | None:
    """Say why a command is not run, None if it is."""
    found = (why for what, why in NOT_RUN.items() if line.startswith(what) or (what[0] == "-" and what in line))
    return next(found, None)


def cut(words: list[str]) -> list[str]:
    """Return a command's words with its options cut down and its rows local."""
    command, text = words[0], " ".join(words)
    if "--epochs" in words:
        place = words.index("--epochs")
        words = words[:place] + words[place + 2 :]
    words = words + CUT.get(command, "").split()
    if command == "finetune" and "--task squad" in text:
        words += CUT_SQUAD.split()
    for option, value in CUT_IF_GIVEN.items():
        words += [option.split()[0], value] if option in text else []
    if command == "bench" and ("--task" in words or "--data" in words):
        words = [*words[: words.index("--seq-lengths")], "--rows", "4"]
    if "--task" in words and "--data" not in words:
        task = words[words.index("--task") + 1]
        words += ["--data", "rows" if task == "glue" else f"rows/{task}"]
    return words


class Place:
    """A directory in which the commands of a page run."""

    def __init__(self, directory: Path, shared: Path | None) -> None:
        self.directory, self.shared = directory, shared

    def run(self, line: str) -> None:
        """Run one line of a page; what a shell does beside distilkit's commands is left to a shell."""
        words = shlex.split(line, comments=True)
        if words[0] != "distilkit":
            subprocess.run(["/bin/sh", "-euc", line], cwd=self.directory, check=True)
            return
        words, output = self.redirected([word for word in words[1:] if word != "…"])
        task = line.partition("# ")[2].partition(",")[0].replace("-", "").lower()
        for name, value in (PLACEHOLDERS | ({"TASK": task} if task else {})).items():
            words = [re.sub(rf"\b{name}\b", value, word) for word in words]
        self.supply(words)
        words = [match for word in words for match in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        with pytest.MonkeyPatch.context() as patch:
            if "--plot" not in words:  # drawing would take two thirds of the time, and has tests of its own
                patch.setattr("distilkit.commands.report.draw", lambda _results: [])
                for command in ("distill", "finetune"):
                    patch.setattr(f"distilkit.commands.{command}.draw_run", lambda _out: None)
            result = CliRunner().invoke(app, cut(words))
        allowed = {0, 3} if "--require" in words else {0}
        assert result.exit_code in allowed, f"{line}\n{shlex.join(cut(words))}\n{result.stderr}{result.exc_info}"
        if output:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(result.stdout, encoding="utf-8")

    def redirected(self, words: list[str]) -> tuple[list[str], Path | None]:
        """Take `> FILE` off a command."""
        if ">" not in words:
            return words, None
        place = words.index(">")
        name = re.sub("|".join(PLACEHOLDERS), lambda found: PLACEHOLDERS[found[0]], words[place + 1])
        return words[:place], self.directory / name

    def supply(self, words: list[str]) -> None:
        """Copy what a command reads and no earlier one wrote."""
        written = words[words.index("-o") + 1] if "-o" in words else None
        for name in words:
            source = COPIES.get(name.rstrip("/"), name)
            if name == written or (self.directory / name).exists() or name.startswith(("-", "/", ".")) or not name:
                continue
            places = (root / source for root in (self.directory, self.shared) if root)
            if found := next((place for place in places if place.is_dir()), None):
                shutil.copytree(found, self.directory / name)


def write_rows(directory: Path, prose: list[str]) -> None:
    """Write a few labelled rows of every task that the pages name, and of a task of one's own."""
    texts = [line[:100] for line in prose[:12]]

    def save(name: str, rows: list[dict[str, object]]) -> None:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    pairs = {
        "cola": ("sentence",), "sst2": ("sentence",), "imdb": ("text",), "qqp": ("question1", "question2"),
        "stsb": ("sentence1", "sentence2"), "mnli": ("premise", "hypothesis"), "qnli": ("question", "sentence"),
        "rte": ("sentence1", "sentence2"), "wnli": ("sentence1", "sentence2"),
        "mrpc": ("sentence1", "sentence2"), "sts": ("sentence1", "sentence2"),
    }  # fmt: skip
    for task, columns in pairs.items():
        kinds = 3 if task == "mnli" else 2
        labels = [n % kinds * (1.5 if task == "stsb" else 1) for n in range(len(texts))]
        rows: list[dict[str, object]] = []
        for text, other, label in zip(texts, texts[1:] + texts[:1], labels, strict=True):
            rows.append(
                {columns[0]: text, columns[-1]: text if label else other, "label": label}
            )  # pairs: alike or not
        validation = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
        for split in ("train", *validation):
            save(f"{task}/{split}.jsonl", rows)
        save(f"{task}/test.jsonl", [{**row, "idx": n, "label": -1} for n, row in enumerate(rows)])
    for split in ("train", "validation"):
        save(f"tickets/{split}.jsonl", [ticket(text, "ab"[n % 2]) for n, text in enumerate(texts)])
        save(f"entities/{split}.jsonl", [{"tokens": ["Ann", *text.split()[:3]], "ner_tags": TAGS} for text in texts])
    spans = [
        {"id": str(n), "question": "which word?", "context": text, "answers": {"text": [text[:4]], "answer_start": [0]}}
        for n, text in enumerate(texts)
    ]
    for split in ("train", "validation"):
        save(f"squad/{split}.jsonl", spans)
        lines = [f'"{text.replace(chr(34), "")}",{1 + n % 2}' for n, text in enumerate(texts)]
        (directory / f"{split}.csv").write_text("\n".join(["review,stars", *lines]) + "\n", encoding="utf-8")


def ticket(text: str, label: str) -> dict[str, str]:
    """Return a row with the column names of the guide and of the measurement."""
    return {"message": text, "category": label, "text": text, "label": label}


def furnish(directory: Path, prose: list[str], rows: Path) -> None:
    """Put the texts and rows that the pages name into a directory."""
    for name in TEXTS:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("\n".join(prose) + "\n", encoding="utf-8")
    (directory / "reviews.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in prose[:12]))
    for name in ("rows", "glue"):
        (directory / name).symlink_to(rows)
    (directory / "sst2").symlink_to(rows / "sst2")
    mails = [f'"{text[:60].replace(chr(34), "")}",{"ab"[n % 2]}' for n, text in enumerate(prose[:40])]
    (directory / "tickets.csv").write_text("\n".join(["message,category", *mails]) + "\n", encoding="utf-8")
    (directory / "new.csv").write_text("\n".join(["message,category", *mails[:4]]) + "\n", encoding="utf-8")
    pairs = [{"query": text[:20], "passage": text} for text in prose[:12]]
    (directory / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    paragraphs = []
    for text in prose[:12]:
        answer = {"text": text[:4], "answer_start": 0}
        paragraphs.append({"context": text, "qas": [{"id": text, "question": text[:20], "answers": [answer]}]})
    squad = {"version": "1.1", "data": [{"title": "prose", "paragraphs": paragraphs}]}
    (directory / "dev-v1.1.json").write_text(json.dumps(squad), encoding="utf-8")


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    make_checkpoint: Callable[..., Path],
    make_sentence_encoder: Callable[..., Path],
    prose: list[str],
) -> Path:
    """The models that the pages name, or take for granted because another page made them."""
    directory = tmp_path_factory.mktemp("shared")
    models = {
        "bert-base-uncased": make_checkpoint("bert", 6),
        "google-bert/bert-base-german-cased": make_checkpoint("bert", 4),
        "distilbert-base-uncased": make_checkpoint("distilbert", 4),
        "xlm-roberta-base": make_checkpoint("roberta", 4),
        "bare-encoder": make_checkpoint("bert", 4, auto=AutoModel),
        "sentence-transformers/all-MiniLM-L6-v2": make_sentence_encoder(6, pooling="mean", dense=0),
        "sentence-transformers/all-mpnet-base-v2": make_sentence_encoder(12, pooling="mean", dense=0),
        "bge-large": make_sentence_encoder(4, pooling="cls", dense=0, hidden_size=64),
    }
    for name, path in models.items():
        shutil.copytree(path, directory / name)
    write_rows(directory / "tasks", prose)
    furnish(directory, prose, directory / "tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", directory / "cache")
        place = Place(directory, None)
        for line in (
            "distilkit init bert-base-uncased -o student0",
            "distilkit distill student0 --corpus text/ -o student",
            "distilkit distill student0 --corpus text/ --objective mlm -o baseline",
            "distilkit finetune bert-base-uncased --task sst2 -o teacher-sst2",
            "distilkit finetune student --task sst2 -o student-sst2",
            "distilkit finetune baseline --task sst2 -o baseline-sst2",
        ):
            place.run(line)
    return directory


@pytest.fixture
def place(shared: Path, tmp_path: Path, prose: list[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    """A directory for one page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", shared / "cache")
    furnish(tmp_path, prose, shared / "tasks")
    return Place(tmp_path, shared)


def case(name: str, commands: list[str]) -> Any:
    """Return a page as a test case. All run in `make test-slow`, a newcomer's first pages in `make test` too."""
    first = name.startswith(FIRST_PAGES) and not name.startswith(LONG_SECTIONS)
    return pytest.param(name, commands, id=name, marks=() if first else pytest.mark.slow)


@pytest.mark.parametrize(("name", "commands"), [case(*story) for story in stories()])
def test_the_commands_of_a_page_run(name: str, commands: list[str], place: Place) -> None:
    """Each command of a page ends with 0, or with 3 if it has a gate, after those above it."""
    for line in commands:
        if not reason(line):
            place.run(line)


def test_the_workflow_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of examples/github-actions.yml run, with its own variables."""
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert workflow["jobs"]["gate"]["runs-on"]
    steps = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    for line in filter(lambda line: not reason(line), steps):
        place.run(Template(line).substitute(workflow["env"]))
    assert json.loads((place.directory / "bench.json").read_text())["command"] == "bench"


def test_nothing_is_left_out_without_need() -> None:
    """Every reason for which a command is skipped applies to at least one command on a page."""
    lines = [line for _, commands in stories() for line in commands]
    assert [what for what in NOT_RUN if not any(what in line for line in lines)] == []
