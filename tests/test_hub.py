"""hub: errors on the way to the hub say what is true, whatever library passes them on; names carry a revision."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.hub import hub_errors, split_revision

httpx = importlib.import_module(errors.HTTPError.__module__.partition(".")[0])  # its name depends on the hub's version


def answer(code: int) -> Any:
    return httpx.Response(code, request=httpx.Request("GET", "https://huggingface.co/x"))


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (errors.GatedRepoError("403", response=answer(403)), "'org/model' is gated: ask for access at .*hf auth login"),
        (errors.RepositoryNotFoundError("404", response=answer(404)), "or it is private.*HF_TOKEN"),
        (errors.RevisionNotFoundError("404", response=answer(404)), "'org/model' has no revision 'v2'"),
        (errors.OfflineModeIsEnabled("offline"), "before HF_HUB_OFFLINE was set"),
        (httpx.ConnectError("no route"), "the hub cannot be reached .*check the connection"),
        (httpx.ReadTimeout("slow"), "the hub cannot be reached"),
        (errors.LocalEntryNotFoundError("not cached"), "the hub cannot be reached"),
        (ValueError("something else"), r"can be read from the hub \(as transformers says it\)"),
    ],
)
def test_each_cause_has_its_line(cause: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind the OSError in which transformers wraps it."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DistilkitError, match=message), hub_errors("org/model@v2"):
        raise OSError("as transformers says it\nat length") from cause


def test_a_misspelt_directory_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without slashes may be a directory or a hub id: the line covers both."""
    monkeypatch.chdir(tmp_path)
    Path("student0").mkdir()
    with pytest.raises(DistilkitError, match=r"no local 'studnet0' \(did you mean 'student0'\?\), and it was not"):
        checkpoint.open_config("studnet0")


def test_a_revision_stands_behind_an_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches transformers; a directory with an @ in its name is a directory."""
    monkeypatch.chdir(tmp_path)
    Path("a@b").mkdir()
    assert [split_revision(name) for name in ("org/m@v1", "org/m", "a@b", "@b", "a@")] == [
        ("org/m", "v1"), ("org/m", None), ("a@b", None), ("@b", None), ("a@", None),
    ]  # fmt: skip
    asked = []

    def from_pretrained(name: str, **options: object) -> None:
        asked.append((name, options["revision"]))
        raise OSError("stop")

    monkeypatch.setattr("distilkit.encoders.checkpoint.AutoConfig.from_pretrained", from_pretrained)
    with pytest.raises(DistilkitError):
        checkpoint.open_config("org/m@v1")
    assert asked == [("org/m", "v1")]


def test_a_name_is_not_taken_for_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of an error may hold the name of the model."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(DistilkitError, match="no such checkpoint on the hub, or it is private"),
        hub_errors("delegated"),
    ):
        raise OSError("delegated is not a valid model") from errors.RepositoryNotFoundError("404", response=answer(404))
