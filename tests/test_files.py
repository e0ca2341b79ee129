"""Files are written atomically, and an output directory belongs to one run."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distilkit.errors import DistilkitError
from distilkit.files import LOCK, claim, claim_files, note_made, read_json, replacing, write_text, writing
from distilkit.locks import locked
from distilkit.record import write_biography


def write_and(error: BaseException, output: Path, name: str = "model.bin", **settings: object) -> None:
    """Claim a directory, write a file and a folder into it, and fail."""
    with claim(output, **settings) as out:
        write_text(out / name, "half")
        note_made(out / "folder", whole=True)
        (out / "folder").mkdir()
        (out / "folder/file").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("bug"), DistilkitError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_nothing_behind(error: BaseException, existed: bool, tmp_path: Path) -> None:
    """A new directory is gone again, parents included; an empty one is empty again; the error is the one raised."""
    output = tmp_path / "parent/a"
    if existed:
        output.mkdir(parents=True)
    with pytest.raises(type(error)):
        write_and(error, output)
    assert output.exists() == existed
    assert list(tmp_path.rglob("*")) == ([output.parent, output] if existed else [])


def test_a_failure_removes_what_the_run_made_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with `-o .`: files and links that somebody else puts there meanwhile stay, and what a link points to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def fail() -> None:
        with claim(Path()) as out:
            write_text(out / "model.bin", "half")
            (out / "notes.txt").write_text("mine")
            (out / "data").symlink_to(tmp_path / "elsewhere")
            write_text(out / "run.json", "half")
            (out / "run.json").unlink()
            (out / "run.json").symlink_to(tmp_path / "elsewhere")
            raise DistilkitError("no")

    with pytest.raises(DistilkitError, match="no"):
        fail()
    assert sorted(path.name for path in Path().iterdir()) == ["data", "notes.txt"]
    assert (tmp_path / "elsewhere/file").read_text() == "mine"


def test_a_run_of_runs_removes_what_they_made(tmp_path: Path) -> None:
    """A finished inner run is part of the outer one, which fails."""

    def fail() -> None:
        with claim(tmp_path / "a") as out:
            with claim(out / "seed-1") as inner:
                write_text(inner / "model.bin", "whole")
            raise DistilkitError("no")

    with pytest.raises(DistilkitError, match="no"):
        fail()
    assert not (tmp_path / "a").exists()


def test_success_leaves_what_was_written(tmp_path: Path) -> None:
    """Parent directories are created too."""
    with claim(tmp_path / "a/b") as out:
        (out / "file").write_text("whole")
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["file", "folder/file", ".hidden"])
def test_a_directory_in_use_is_refused_untouched(name: str, tmp_path: Path) -> None:
    """Its files stay, and the error names the directory and -o."""
    path = tmp_path / "a" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(DistilkitError, match=r"/a' .* -o"):
        write_and(RuntimeError(), tmp_path / "a")
    assert path.read_text() == "mine"


def test_a_file_and_a_full_disk_are_errors_of_the_user(tmp_path: Path) -> None:
    """An output that is a file and an error of the operating system become one-line errors."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DistilkitError, match=r"/file'.* -o"):
        write_and(RuntimeError(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"

    def fill() -> None:
        with claim(tmp_path / "a") as out, writing(out / "b"):
            raise OSError(28, "No space left on device")

    with pytest.raises(DistilkitError, match=r"cannot write '.*/a/b' \(No space left on device\): free some space"):
        fill()
    assert not (tmp_path / "a").exists()


def test_an_interrupted_run_with_a_checkpoint_is_kept_for_resume(tmp_path: Path) -> None:
    """With a checkpoint the directory stays and --resume accepts it; a finished directory is not resumed."""
    output = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        write_and(KeyboardInterrupt(), output, name="checkpoint-1", keep="checkpoint-*")
    assert (output / "checkpoint-1").exists()
    with pytest.raises(DistilkitError, match=r"/a' contains an interrupted run: continue it with --resume"):
        write_and(RuntimeError(), output, keep="checkpoint-*")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/checkpoint-1").write_text("mine")
    with pytest.raises(DistilkitError, match=r"/b' does not contain an interrupted run"):
        write_and(RuntimeError(), tmp_path / "b", resume=True, keep="checkpoint-*")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["checkpoint-1"]
    with claim(output, resume=True, keep="checkpoint-*") as out:
        write_biography(out, [])
    with pytest.raises(DistilkitError, match="already finished"):
        write_and(RuntimeError(), output, resume=True)
    assert (output / "checkpoint-1").exists()


def test_a_planted_link_is_replaced_not_followed(tmp_path: Path) -> None:
    """This holds for the name itself, and for a temporary name that is easy to guess."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("README.md", ".README.md.partial"):
        (tmp_path / name).symlink_to(precious)
    write_text(tmp_path / "README.md", "new")

    assert precious.read_text() == "mine"
    assert (tmp_path / "README.md").read_text() == "new"
    assert not (tmp_path / "README.md").is_symlink()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    """The temporary file is removed."""
    path = tmp_path / "a"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "old")]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    """Files are readable as those of other programs are."""
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)

    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


KILLED = """
import os, sys
from pathlib import Path
from distilkit.files import claim
with claim(Path(sys.argv[1]), keep="checkpoint-*"):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def start_claim(output: Path) -> subprocess.Popen[str]:
    """Claim a directory in another process, which holds it until its stdin is closed."""
    words = [sys.executable, "-c", KILLED, str(output)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "claimed\n"
    return process


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_has_one_run_and_a_killed_one_does_not_block(resume: bool, tmp_path: Path) -> None:
    """While a process has claimed it, even with nothing in it yet, another is refused; once that is killed, not."""
    output = tmp_path / "a"
    process = start_claim(output)
    with pytest.raises(DistilkitError, match=r"another run is writing to '.*/a': wait for it, or choose another -o"):
        write_and(RuntimeError(), output, resume=resume, keep="checkpoint-*")
    process.kill()
    process.communicate()
    assert [path.name for path in output.iterdir()] == [LOCK]
    with claim(output, resume=resume, keep="checkpoint-*") as out:
        write_text(out / "model.bin", "whole")
    assert [path.name for path in output.iterdir()] == ["model.bin"]


def test_a_killed_run_with_files_is_continued_or_named(tmp_path: Path) -> None:
    """What it left half-written is removed when the run continues."""
    output = tmp_path / "a"
    process = start_claim(output)
    (output / ".x1.partial").write_text("half")
    process.kill()
    process.communicate()
    with pytest.raises(DistilkitError, match="contains an interrupted run: continue it with --resume"):
        write_and(RuntimeError(), output, keep="checkpoint-*")
    assert sorted(path.name for path in output.iterdir()) == [LOCK, ".x1.partial"]
    with claim(output, resume=True, keep="checkpoint-*"):
        pass
    assert not list(output.iterdir())


def test_threads_race_for_a_directory_and_one_wins(tmp_path: Path) -> None:
    """Ten times, twenty threads of one process start at once: the others are refused, and nothing of theirs is left."""
    for attempt in range(10):
        barrier = threading.Barrier(20)

        def race(number: int, output: Path = tmp_path / str(attempt), barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                with claim(output) as out:
                    write_text(out / "model.bin", str(number))
                    time.sleep(0.05)
            except DistilkitError:
                return False
            return True

        with ThreadPoolExecutor(20) as pool:
            assert sum(pool.map(race, range(20))) == 1
        assert [path.name for path in (tmp_path / str(attempt)).iterdir()] == ["model.bin"]


def test_files_are_claimed_by_name(tmp_path: Path) -> None:
    """A second writer of one file is refused, an existing file stays, and a failure removes what was written."""
    path = tmp_path / "new/a.jsonl"
    with claim_files({path: "--examples"}):
        with (
            pytest.raises(DistilkitError, match="another run is writing --examples"),
            claim_files({path: "--examples"}),
        ):
            pass
        write_text(path, "whole")
    assert [file.name for file in path.parent.iterdir()] == ["a.jsonl"]
    with (
        pytest.raises(DistilkitError, match=r"--examples '.*a.jsonl' already exists"),
        claim_files({path: "--examples"}),
    ):
        pass

    def fail() -> None:
        with claim_files({tmp_path / "b/c/x.tsv": "--write-predictions"}):
            write_text(tmp_path / "b/c/x.tsv", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.jsonl", "new"]


def test_a_lock_is_not_followed(tmp_path: Path) -> None:
    """A planted link with the lock's name is an error, and its target is not touched."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"), locked(tmp_path / "lock", "busy"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"\xff"), "codec can't decode"),
        (lambda path: path.write_text("{"), "Expecting"),
        (lambda path: path.write_text("[" * 100_000), "nested too deeply"),
        (lambda path: path.write_text("1" * 5000), "integer string conversion"),
        (lambda path: path.mkdir(), "directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.write_bytes(b" " * 2**26 + b"1"), "larger than 64 MiB"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
)
def test_json_that_cannot_be_read_has_a_reason(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    """Whatever is wrong is a ValueError, also what would block or fill the memory."""
    make(tmp_path / "a.json")
    with pytest.raises(ValueError, match=reason):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")
