"""Records of a made-up chain, with figures for checks by hand: teacher, student and baseline, fine-tuned on MRPC."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from distilkit.options.bench import BenchOptions
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.record import Record, record, write_biography

LINES = [
    {"step": 1, "loss": 25.0, "ce": 3.0, "mlm": 5.0, "tokens": 100},
    {"step": 2, "loss": 20.0, "ce": 2.0, "mlm": 4.0, "tokens": 200},
    {"step": 2, "tokens": 200, "heldout_loss": 4.5},
    {"step": 3, "loss": 18.0, "ce": 1.5, "mlm": 3.5, "tokens": 300},
    {"step": 3, "tokens": 300, "heldout_loss": 4.25},
]


def write_chain(root: Path) -> Path:
    """Write the checkpoints and the saved records of eval and bench."""
    extracted = [
        record(
            "init",
            InitOptions(teacher="some/teacher", output=root / "extracted", seed=7),
            {"teacher/layers": 4.0, "student/layers": 2.0, "max_difference": 0.0},
            head="masked-lm",
        )
    ]
    write_model(root / "extracted", 100_000, extracted)
    biographies: dict[str, list[Record]] = {"teacher": []}
    for name, objective in (("student", "triple"), ("control", "mlm")):
        config = DistillOptions(
            seq_length=128,
            student=str(root / "extracted"), corpus=str(root / "words.txt"), output=root / name, lr=1e-3,
            objective=objective, temperature=2.0 if objective == "mlm" else 3.0,
        )  # fmt: skip
        trained = {"loss": 18.0, "heldout_loss": 4.25, "tokens": 300.0, "seconds": 90.0}
        biographies[name] = [*extracted, record("distill", config, trained)]
        write_model(root / name, 100_000, biographies[name])
        (root / name / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    places = tuple(str(root / f"{name}-tuned") for name in ("teacher", "student", "control"))
    for place, (name, seeds) in zip(places, {"teacher": 1, "student": 3, "control": 1}.items(), strict=True):
        model = str(root / name) if biographies[name] else "some/teacher"
        tuned = FinetuneOptions(model=model, output=Path(place), task="mrpc", data=root / "mrpc", seeds=seeds)
        spread = {"mrpc/f1/min": 0.814, "mrpc/f1/max": 0.852} if seeds > 1 else {}
        done = record("finetune", tuned, {"seconds": 30.0, **spread}, device="cpu")
        write_model(Path(place), 200_000 if name == "teacher" else 100_000, [*biographies[name], done])
    (root / "words.txt").write_text("words\n")
    scores = {
        "0/mrpc/f1": 0.88, "0/mrpc/accuracy": 0.82,
        "1/mrpc/f1": 0.836, "1/mrpc/accuracy": 0.78, "1/retention/mrpc": 0.95,
        "1/retention/mrpc/low": 0.91, "1/retention/mrpc/high": 0.985,
        "1/difference/mrpc/control": 0.044, "1/difference/mrpc/control/low": 0.004,
        "1/difference/mrpc/control/high": 0.085,
        "2/mrpc/f1": 0.792, "2/mrpc/accuracy": 0.71, "2/retention/mrpc": 0.90,
    }  # fmt: skip
    evaluated = EvalOptions(models=places, against=places[0], control=(places[2],), task="mrpc", data=root / "mrpc")
    save(root / "eval.json", record("eval", evaluated, scores, device="cpu", date="2026-11-26T10:00:00+00:00"))
    speeds: dict[str, float] = {"1/speedup": 1.6, "2/speedup": 2.0}
    for i, (milliseconds, parameters) in enumerate(((8.0, 2e5), (5.0, 1e5), (4.0, 1e5))):
        speeds |= {f"{i}/parameters": parameters, f"{i}/bytes": 4 * parameters}
        speeds |= {f"{i}/cpu/fp32/b1/l64/latency_ms_p50": milliseconds}
    save(
        root / "bench.json",
        record("bench", BenchOptions(models=places), speeds, threads="2", date="2026-11-26T11:00:00+00:00"),
    )
    return root


def write_model(directory: Path, parameters: int, biography: list[Record], **config: Any) -> None:
    """Write a directory that looks like a checkpoint, with its records."""
    directory.mkdir(parents=True)
    save_file({"weight": np.zeros(parameters, dtype=np.float32)}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    write_biography(directory, biography)


def save(path: Path, done: Record) -> None:
    """Save a record as `--json > path` does."""
    path.write_text(json.dumps(done.to_json()))
