"""--resume: continue an interrupted run from its newest intact checkpoint."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from line import ROWS, Line, batches, collate, stop_at
from safetensors.torch import load_file
from torch import nn

from distilkit.commands.distill import distill
from distilkit.data.batches import Batches
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.options.training import TrainOptions
from distilkit.training.loop import train
from distilkit.training.resume import CHECKSUMS, checksums, run_checkpoints


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    """An option that changes the result must be the interrupted run's."""
    train(Line(), batches(), TrainOptions(steps=4, checkpoint_every=2), tmp_path)
    with pytest.raises(DistilkitError, match=r"--weight-decay was 0.0 in the interrupted run, now 0.1"):
        train(Line(), batches(), TrainOptions(steps=4, weight_decay=0.1, resume=True), tmp_path)


def test_resume_takes_another_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From then on the schedule uses the new rate; a warning names both."""
    config = TrainOptions(steps=8, lr=0.1, checkpoint_every=4)
    with pytest.raises(MemoryError):
        train(Line(), batches(), config, tmp_path, evaluate=stop_at(5), evaluate_every=1)
    train(Line(), batches(), TrainOptions(steps=8, lr=0.02, resume=True), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "loss" in line]

    assert "--lr was 0.1 in the interrupted run: continuing with 0.02" in capsys.readouterr().err
    # one update of warm-up, at 0, then 1 down to 1/7 of the peak
    assert rates == pytest.approx(
        [0, *(0.1 * left / 7 for left in (7, 6, 5)), *(0.02 * left / 7 for left in range(4, 0, -1))]
    )


def resumed(out: Path, *, steps: int = 9) -> tuple[nn.Module, list[int]]:
    """Resume a run of that many steps; return the model and the steps in train.jsonl."""
    model = Line()
    train(model, batches(), TrainOptions(steps=steps, checkpoint_every=2, resume=True), out)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return model, [line["step"] for line in lines]


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["state-0.pt", "random_states_0.pkl", "custom_checkpoint_0.pkl", "optimizer.bin"])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, name: str) -> None:
    """Whatever file it is planted in, with checksums to match; the checkpoint is refused in one line."""
    with pytest.raises(MemoryError):
        train(
            Line(),
            batches(),
            TrainOptions(steps=9, checkpoint_every=2),
            tmp_path,
            evaluate=stop_at(5),
            evaluate_every=1,
        )
    newest = run_checkpoints(tmp_path)[-1]
    torch.save(Planted(tmp_path / "mark"), newest / name)
    (newest / CHECKSUMS).write_text(json.dumps(checksums(newest)))
    with pytest.raises(DistilkitError, match="cannot be read safely"):
        resumed(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged or missing file: a warning names the checkpoint, and the result is identical."""
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = Line()
    train(whole, batches(), TrainOptions(steps=9, checkpoint_every=2), tmp_path / "whole")
    out = tmp_path / "broken"
    config = TrainOptions(steps=9, checkpoint_every=2)
    with pytest.raises(MemoryError):
        train(Line(), batches(), config, out, evaluate=stop_at(7), evaluate_every=1)
    assert [path.name for path in run_checkpoints(out)] == ["checkpoint-00000004", "checkpoint-00000006"]
    file = out / "checkpoint-00000006/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    {
        "cut": lambda: file.write_bytes(file.read_bytes()[:-3]),
        "flip": lambda: file.write_bytes(data),
        "empty": lambda: file.write_bytes(b""),
        "gone": file.unlink,
    }[damage]()
    model, steps = resumed(out)

    assert "checkpoint-00000006 is damaged: continuing from checkpoint-00000004" in capsys.readouterr().err
    assert torch.equal(model.student.weight, whole.student.weight)
    assert sorted(set(steps)) == list(range(10))
    assert steps[-1] == 9


def test_two_damaged_checkpoints_start_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It does not continue from a wrong state."""
    config, place = TrainOptions(steps=9, checkpoint_every=2), tmp_path / "whole"
    place.mkdir()
    with pytest.raises(MemoryError):
        train(Line(), batches(), config, tmp_path, evaluate=stop_at(7), evaluate_every=1)
    for path in run_checkpoints(tmp_path):
        (path / "manifest.json").write_text("{")
    model, _ = resumed(tmp_path)
    whole = Line()
    train(whole, batches(), TrainOptions(steps=9), place)

    assert "from the start" in capsys.readouterr().err
    assert torch.equal(model.student.weight, whole.student.weight)


RUN = {"seq_length": 32, "batch_size": 4, "steps": 60, "checkpoint_every": 5, "log_every": 2, "evaluate_every": 20}
COMMAND = [word for name, value in RUN.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def start(student: Path, teacher: Path, corpus: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """Start `distilkit distill` in its own process."""
    words = [
        "distill",
        str(student),
        "--teacher",
        str(teacher),
        "--corpus",
        str(corpus),
        "-o",
        str(out),
        *COMMAND,
        *more,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "distilkit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupted_run_resumes_to_the_bit(
    make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    """SIGINT exits with 130 and names --resume; the resumed run ends with the weights of an uninterrupted one."""
    teacher, student = make_checkpoint("bert", 4), make_checkpoint("bert", 2)
    broken = start(student, teacher, corpus, tmp_path / "broken")
    while not list((tmp_path / "broken").glob("checkpoint-*[0-9]")):
        assert broken.poll() is None, broken.communicate()[1]
        time.sleep(0.05)
    broken.send_signal(signal.SIGINT)
    _, stderr = broken.communicate(timeout=60)
    assert broken.returncode == 130, stderr
    assert "--resume" in stderr.splitlines()[-1]
    assert not (tmp_path / "broken" / "distilkit.json").exists()

    for name in ("whole", "broken"):
        names = {"student": str(student), "teacher": str(teacher), "corpus": str(corpus), "output": tmp_path / name}
        distill(DistillOptions(**names, **RUN, resume=name == "broken"))  # type: ignore[arg-type]
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [json.loads(line) for line in (tmp_path / "broken" / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, 61))
    assert not list((tmp_path / "broken").glob("checkpoint-*"))


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_with_the_same_bits(
    make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    """SIGKILL, SIGTERM and SIGINT at random moments, each followed by --resume; every step is in train.jsonl once."""
    teacher, student = make_checkpoint("bert", 4), make_checkpoint("bert", 2)
    often = ("--checkpoint-every", "1", "--steps", "400")
    whole = start(student, teacher, corpus, tmp_path / "whole", *often)
    _, stderr = whole.communicate(timeout=300)
    assert whole.returncode == 0, stderr
    out, chance, kills = tmp_path / "broken", random.Random(0), 0  # noqa: S311 - no secret
    while kills < 20:
        process = start(student, teacher, corpus, out, *often, "--resume")
        if kills % 4:  # three in four while it trains, one anywhere
            newest = max(out.glob("checkpoint-*[0-9]"), default=None)
            while process.poll() is None and max(out.glob("checkpoint-*[0-9]"), default=None) in (newest, None):
                time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3 if kills % 4 else 5))
        if process.poll() is not None:
            break
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        process.communicate(timeout=60)
        kills += 1
    last = start(student, teacher, corpus, out, *often, "--resume")
    _, stderr = last.communicate(timeout=300)
    assert last.returncode == 0, stderr
    assert kills == 20
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, 401))
    assert not list(out.glob("checkpoint-*"))


def test_another_number_of_processes_does_not_go_on(tmp_path: Path) -> None:
    """It would train on other rows, so the error names the original number."""
    settings = {"lr": 0.1, "checkpoint_every": 2}
    train(Line(), batches(), TrainOptions(steps=3, **settings), tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"num_processes": 2}))
    with pytest.raises(DistilkitError, match="--num-processes was 2 in the interrupted run, now 1"):
        train(Line(), batches(), TrainOptions(steps=3, resume=True, **settings), tmp_path)


def test_other_rows_do_not_go_on(tmp_path: Path) -> None:
    """Even with as many rows: the held-out ones might have been trained on."""
    settings = {"lr": 0.1, "checkpoint_every": 2}
    train(Line(), batches(), TrainOptions(steps=3, **settings), tmp_path)
    others = Batches([*ROWS[:-1], ROWS[0]], collate, batch_size=2, seed=7)
    with pytest.raises(DistilkitError, match="the training data differs from the interrupted run's"):
        train(Line(), others, TrainOptions(steps=3, resume=True, **settings), tmp_path)


def test_a_run_of_an_older_distilkit_goes_on(tmp_path: Path) -> None:
    """Options that it did not know count as having today's default; an unreadable file is named."""
    settings = {"lr": 0.1, "checkpoint_every": 2}
    train(Line(), batches(), TrainOptions(steps=3, **settings), tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    del run["compile"], run["rows"], run["weight_decay"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    train(Line(), batches(), TrainOptions(steps=3, resume=True, **settings), tmp_path)
    with pytest.raises(DistilkitError, match=r"--weight-decay was 0.0 in the interrupted run, now 0.5"):
        train(Line(), batches(), TrainOptions(steps=3, resume=True, weight_decay=0.5, **settings), tmp_path)
    (tmp_path / "run.json").write_text("")
    with pytest.raises(DistilkitError, match=r"run.json' cannot be read: start again in another -o"):
        train(Line(), batches(), TrainOptions(steps=3, resume=True, **settings), tmp_path)
