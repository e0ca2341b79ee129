"""Files are written atomically, and an output directory belongs to one run."""

import os
from pathlib import Path

import pytest

from distilkit.errors import DistilkitError
from distilkit.files import claim, replacing, write_text
from distilkit.record import write_biography


def write_and(error: BaseException, output: Path, name: str = "model.bin", **settings: object) -> None:
    """Claim a directory, write a file and a folder into it, and fail."""
    with claim(output, **settings) as out:
        (out / name).write_text("half")
        (out / "folder").mkdir()
        (out / "folder/file").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("bug"), DistilkitError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_nothing_behind(error: BaseException, existed: bool, tmp_path: Path) -> None:
    """A new directory is gone again, an empty one is empty again, and the error is the one that was raised."""
    output = tmp_path / "a"
    if existed:
        output.mkdir()
    with pytest.raises(type(error)):
        write_and(error, output)
    assert output.exists() == existed
    assert not existed or not list(output.iterdir())


def test_success_leaves_what_was_written(tmp_path: Path) -> None:
    """Parent directories are created too."""
    with claim(tmp_path / "a/b") as out:
        (out / "file").write_text("whole")
    assert (tmp_path / "a/b/file").read_text() == "whole"


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
    with pytest.raises(DistilkitError, match="No space left on device"):
        write_and(OSError(28, "No space left on device"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_interrupted_run_with_a_checkpoint_is_kept_for_resume(tmp_path: Path) -> None:
    """With a checkpoint the directory stays and --resume accepts it; a finished directory is not resumed."""
    output = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        write_and(KeyboardInterrupt(), output, name="checkpoint-1", keep="checkpoint-*")
    assert (output / "checkpoint-1").exists()
    with (
        pytest.raises(DistilkitError, match=r"/a' .* -o"),
        claim(output, resume=True, keep="checkpoint-*"),  # somebody else's checkpoint: no run.json
    ):
        pass
    assert (output / "checkpoint-1").exists()
    (output / "run.json").write_text("{}")
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
