"""learning-curve.svg in the directory of a run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distilkit.commands.distill import distill
from distilkit.options.distill import DistillOptions
from distilkit.training import learning_curve
from distilkit.training.learning_curve import PICTURE, draw_run, points


@pytest.fixture(autouse=True)
def curves(monkeypatch: pytest.MonkeyPatch, draw_curve: Callable[..., None]) -> None:
    """Draw curves here, unlike in other tests."""
    monkeypatch.setattr(learning_curve, "draw_curve", draw_curve)


def lines(count: int) -> list[dict[str, float]]:
    """Return the lines of a run: ce, mlm and cos fall, with an evaluation after every tenth update."""
    found = []
    for step in range(1, count + 1):
        loss = {"loss": 8 / step, "ce": 4 / step, "mlm": 3 / step, "cos": 1 / step}
        found.append({"step": step, **loss, "lr": 1e-4, "tokens": 100 * step, "seconds": step, "tokens_per_second": 1})
        if step % 10 == 0:
            found.append({"step": step, "tokens": 100 * step, "heldout_loss": 2.0, "heldout_agreement": 0.5})
    return found


def drawn(out: Path, entries: list[dict[str, float]]) -> str:
    (out / "train.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    draw_run(out)
    return (out / PICTURE).read_text(encoding="utf-8")


def titles(svg: str) -> list[str]:
    """Return the titles of the panels; matplotlib draws text as outlines and adds the words as comments."""
    return [part.split("-->")[0].strip() for part in svg.split("<!--")[1:]]


def test_every_loss_has_a_panel(tmp_path: Path) -> None:
    """The loss, its terms and the agreement have panels; the held-out loss shares that of masked LM."""
    words = titles(drawn(tmp_path, lines(30)))

    assert {"loss", "ce", "mlm", "cos", "held-out agreement", "training", "held out"} <= set(words)
    assert not {"lr", "seconds", "step"} & set(words)
    assert not list(tmp_path.glob(".*"))


def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    """The file contains no date and no random names."""
    assert drawn(tmp_path, lines(30)) == drawn(tmp_path, lines(30))


def test_a_single_loss_term_is_drawn_once(tmp_path: Path) -> None:
    """With masked LM alone, there is no second panel for the loss."""
    entries = [
        {"step": line["step"], "tokens": line["tokens"], "loss": line["mlm"], "mlm": line["mlm"]}
        for line in lines(9)
        if "mlm" in line
    ]
    words = titles(drawn(tmp_path, entries))

    assert "mlm" in words
    assert "loss" not in words


def test_a_heldout_loss_without_masked_lm_in_training(tmp_path: Path) -> None:
    """Without a masked-LM term, the held-out loss has its own panel."""
    entries = [{key: value for key, value in line.items() if key not in ("mlm", "ce")} for line in lines(20)]

    assert {"cos", "held-out loss"} <= set(titles(drawn(tmp_path, entries)))


def test_long_curves_are_means_of_neighbours() -> None:
    """601 values become groups of three and a last group of one; first and last values by hand."""
    entries = [{"tokens": float(i), "loss": float(i % 3)} for i in range(601)]
    x, y = zip(*points(entries, "loss"), strict=True)

    assert len(x) == 201
    assert (x[0], y[0]) == (1.0, 1.0)
    assert (x[-1], y[-1]) == (600.0, 0.0)
    assert points(entries, "ce") == []


def test_distill_leaves_its_curve(
    make_checkpoint: Callable[..., Path], teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    """distill writes the picture beside the checkpoint."""
    out = tmp_path / "out"
    student = str(make_checkpoint("bert", 2))
    distill(
        DistillOptions(student=student, teacher=str(teacher), corpus=str(corpus), output=out, steps=3, seq_length=32)
    )

    assert "held-out agreement" in titles((out / PICTURE).read_text(encoding="utf-8"))
