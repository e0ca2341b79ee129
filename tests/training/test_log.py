"""--log-with: accelerate's trackers get the lines of train.jsonl."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from line import Line, batches, stop_at

from distilkit.commands.distill import distill
from distilkit.commands.finetune import finetune
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.training import TrainOptions
from distilkit.training.log import TrainingLog, read_log
from distilkit.training.loop import train


class Fake(GeneralTracker):
    """A tracker that records its calls."""

    name = "tensorboard"
    requires_logging_directory = True
    made: list["Fake"]

    def __init__(self, run_name: str, logging_dir: str, **options: Any) -> None:
        super().__init__()
        self.run_name, self.directory, self.options = run_name, logging_dir, options
        self.config: dict[str, Any] = {}
        self.lines: list[dict[str, Any]] = []
        self.finished = 0
        Fake.made.append(self)

    @property
    def tracker(self) -> "Fake":
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.lines.append({"step": step, **values})

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    """Replace TensorBoard's tracker; return the list of trackers that are made."""
    Fake.made = []
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Fake)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    return Fake.made


def test_a_tracker_gets_every_line(trackers: list[Fake], tmp_path: Path) -> None:
    """It gets the lines of train.jsonl, the options, and a folder in the output directory."""
    config = TrainOptions(steps=4, log_with="tensorboard")
    train(Line(), batches(), config, tmp_path, evaluate=lambda: {"heldout_loss": 0.25})
    (tracker,) = trackers
    written = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]

    assert tracker.lines == written
    assert {"loss", "square", "lr", "tokens_per_second"} <= tracker.lines[1].keys()
    assert "heldout_loss" in tracker.lines[0]
    assert Path(tracker.directory) == tmp_path / "tensorboard"
    assert tracker.config["lr"] == config.lr
    assert tracker.finished == 1


def test_a_resumed_run_continues_the_count(trackers: list[Fake], tmp_path: Path) -> None:
    """Its first line is the update after the checkpoint; later lines of the interrupted run are purged."""
    config = TrainOptions(steps=9, checkpoint_every=4, log_with="tensorboard")
    with pytest.raises(MemoryError):
        train(
            Line(),
            batches(),
            config,
            tmp_path,
            evaluate=stop_at(6),
            evaluate_every=1,
        )
    again = TrainOptions(steps=9, log_with="tensorboard", resume=True)
    train(Line(), batches(), again, tmp_path)

    assert [line["step"] for line in trackers[1].lines] == [5, 6, 7, 8, 9]
    assert trackers[1].options == {"purge_step": 5}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_reported_first(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; no model is read and nothing is written."""
    monkeypatch.setattr(tracking, "_available_trackers", [])
    out = tmp_path / "out"
    with pytest.raises(DistilkitError, match=f"--log-with {name} requires .*: pip install 'distilkit.{name}.'$"):
        distill(DistillOptions(student="none", corpus="none", output=out, log_with=name))
    with pytest.raises(DistilkitError, match=f"distilkit.{name}.'$"):
        finetune(FinetuneOptions(model="none", task="sst2", output=out, log_with=name))
    assert not out.exists()


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    """With the real package, if installed, an interrupted and resumed run has every update once, in order."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    line, numbered = Line(), batches()
    config = TrainOptions(steps=9, checkpoint_every=4, log_every=1, log_with="tensorboard")
    with pytest.raises(MemoryError):
        train(line, numbered, config, tmp_path, evaluate=stop_at(6), evaluate_every=1)
    train(line, numbered, TrainOptions(steps=9, log_with="tensorboard", resume=True), tmp_path)
    read = EventAccumulator(str(tmp_path / "tensorboard" / "distilkit"))
    read.Reload()
    written = [json.loads(text) for text in (tmp_path / "train.jsonl").read_text().splitlines()]
    losses = {entry["step"]: entry["loss"] for entry in written if "loss" in entry}

    assert [event.step for event in read.Scalars("loss")] == list(range(1, 10))
    assert [event.value for event in read.Scalars("loss")] == pytest.approx(list(losses.values()))
    assert [event.step for event in read.Scalars("heldout_loss")] == [0, 1, 2, 3, 4]


def test_a_damaged_line_is_skipped_when_a_run_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a line, other JSON and nesting are counted in a warning; objects that are no line are not used either."""
    settings = {"lr": 0.1, "checkpoint_every": 2}
    with pytest.raises(MemoryError):
        train(Line(), batches(), TrainOptions(steps=6, **settings), tmp_path, evaluate=stop_at(5), evaluate_every=1)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    damage = ['{"step": 1, "tok', "[1]", "7", '{"step": "x", "tokens": 1}', "[" * 99999, "", *lines]
    (tmp_path / "train.jsonl").write_text("\n".join(damage))
    train(Line(), batches(), TrainOptions(steps=6, resume=True, **settings), tmp_path)
    found = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert "has 4 unreadable lines, which are skipped" in capsys.readouterr().err


def test_a_log_does_not_grow_in_memory(tmp_path: Path) -> None:
    """Lines are written, not held: after many updates it holds as little as after a few."""
    log = TrainingLog(tmp_path, Accelerator(cpu=True), TrainOptions(), 0)
    sizes = []
    for step in range(1, 301):
        log.update(step, 0.1, [{"loss": torch.tensor(1.0), "tokens": torch.tensor(2)}])
        log.flush(tmp_path)
        sizes.append(len(pickle.dumps({name: part for name, part in vars(log).items() if name != "accelerator"})))
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 300
    assert max(sizes[100:]) < max(sizes[:100]) + 100


def test_a_loss_that_json_cannot_hold_is_null(tmp_path: Path) -> None:
    """train.jsonl is JSON whatever the losses are, and is read again as NaN."""
    (tmp_path / "train.jsonl").write_text(
        '{"step": 1, "tokens": 2, "loss": null}\n{"step": 2, "tokens": 2, "loss": NaN}\n'
    )
    assert all(math.isnan(line["loss"]) for line in read_log(tmp_path))
    log = TrainingLog(tmp_path, Accelerator(cpu=True), TrainOptions(), 0)
    log.heldout({"heldout_loss": math.inf})
    assert json.loads((tmp_path / "train.jsonl").read_text(), parse_constant=pytest.fail)["heldout_loss"] is None
