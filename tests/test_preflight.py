"""Mistakes in paths are found before anything heavy is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from distilkit.errors import DistilkitError
from distilkit.options.bench import BenchOptions
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.predict import PredictOptions
from distilkit.options.report import ReportOptions
from distilkit.preflight import check_places, is_local, missing_places
from distilkit.record import record, write_biography


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    """A missing student, a missing text with the nearest name, and an output in use."""
    (tmp_path / "corpus.txt").touch()
    options = DistillOptions(student=f"{tmp_path}/no", corpus=f"{tmp_path}/corpsu.txt", output=tmp_path)
    with pytest.raises(DistilkitError) as caught:
        check_places("distill", options)
    for words in ("no checkpoint directory", "--corpus", f"did you mean '{tmp_path / 'corpus.txt'}'", "is not empty"):
        assert words in str(caught.value)


def test_a_mistyped_folder_is_known_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with one slash may be a hub id; a similar local name says that it is not, and @main that it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuned" / "student").mkdir(parents=True)
    found = {
        name: list(missing_places(EvalOptions(models=(name,), task="sst2")))
        for name in ("tuned/studnet", "tuned/studnet@main", "tuned/other", "google/studnet")
    }
    assert [name for name, lines in found.items() if lines] == ["tuned/studnet"]
    assert "did you mean 'tuned/student'" in found["tuned/studnet"][0]


def test_an_output_file_that_exists_is_refused(tmp_path: Path) -> None:
    """`predict -o` and the files of `eval --agreement` are known before a model is opened."""
    taken, text = tmp_path / "taken.csv", tmp_path / "text.txt"
    taken.touch()
    text.touch()
    given = EvalOptions(models=("org/model",), agreement=str(text), examples=taken)
    for command, options in (("eval", given), ("predict", PredictOptions(model="m", data=text, output=taken))):
        with pytest.raises(DistilkitError, match=r"'.*taken\.csv' already exists"):
            check_places(command, options)


def test_what_may_be_on_the_hub_is_not_refused(tmp_path: Path) -> None:
    """Hub ids, addresses and patterns are looked up later."""
    names = {"bert-base-uncased": False, "org/model": False, "s3://a/b/c": False, "text/*.txt": False}
    names |= {"./model": True, "a/b/c": True, "rows.csv": True, "/a": True}
    assert {name: is_local(name) for name in names} == names
    check_places("distill", DistillOptions(student="org/model", corpus="org/text:en", output=tmp_path / "new"))


def test_a_report_may_replace_its_own_page_alone(tmp_path: Path) -> None:
    """Another command's output is refused."""
    report = ReportOptions(directories=(str(tmp_path),), output=tmp_path / "page")
    report.output.mkdir()
    write_biography(report.output, [record("report", report, {})])
    check_places("report", report)
    write_biography(report.output, [record("bench", BenchOptions(models=("m",)), {})])
    with pytest.raises(DistilkitError, match="is not empty"):
        check_places("report", report)


def test_it_takes_no_torch(tmp_path: Path) -> None:
    """A misspelt path costs a fraction of a second, because torch is not imported."""
    program = (
        "import sys\nfrom distilkit.cli import app\n"
        f"try: app(['finetune', './no', '--task', 'rte', '-o', {str(tmp_path / 'out')!r}])\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
    assert "no checkpoint directory './no'" in done.stderr
