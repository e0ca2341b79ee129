"""`demo`: the whole pipeline, offline: shrink a classifier that the demo trains, or the checkpoint of --teacher."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from distilkit.claims import claim
from distilkit.commands.bench import bench
from distilkit.commands.demo_inputs import Sizes, write_paragraphs, write_reviews, write_untrained
from distilkit.commands.distill import distill
from distilkit.commands.evaluate import evaluate
from distilkit.commands.finetune import finetune
from distilkit.commands.init import init
from distilkit.commands.report import report
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.evaluation.agreement import AGREEMENT_METRICS
from distilkit.evaluation.paired_outputs import find_teacher
from distilkit.options.bench import BenchOptions
from distilkit.options.declare import command_line
from distilkit.options.distill import DistillOptions
from distilkit.options.evaluate import EvalOptions
from distilkit.options.finetune import FinetuneOptions
from distilkit.options.init import InitOptions
from distilkit.options.report import DemoOptions, ReportOptions
from distilkit.options.training import CommonOptions
from distilkit.progress import say
from distilkit.record import Record, record, write_biography
from distilkit.training.log import read_log

SEQ_LENGTH = 64  # tokens, of the reviews and in bench
SPEED = f"cpu/fp32/b1/l{SEQ_LENGTH}/latency_ms_p50"
REVIEWED = ("teacher", "student", "control", "extracted")  # the models of the made-up reviews
COMPARED = ("student", "extracted")  # the models that are compared with --teacher


class Step(NamedTuple):
    """A step of the pipeline: its name, what it is for, and the command with its options."""

    name: str
    purpose: str
    command: Callable[[Any], Record]
    options: CommonOptions


Done = Mapping[str, Record]  # the record of each step, by name


def demo(options: DemoOptions, say: Callable[[str], None] = say, sizes: Sizes | None = None) -> Record:
    """Make a student with half of a teacher's layers, distil it, compare it with baselines, and report.

    `say` receives the purpose and the command line of each step before it runs.
    Raises DistilkitError if --teacher has a head whose students cannot be compared with it on plain text.
    """
    if options.teacher:
        check_comparable(options.teacher)
    output = options.output or Path(tempfile.mkdtemp(prefix="distilkit-demo-"))
    with claim(output) as out:
        if options.teacher:
            write_paragraphs(out, options.corpus, options.seed)
            say(f"# Text to distil on: {out}/corpus.txt\n# Text for the comparison: {out}/heldout.txt")
            done = run(steps_of_teacher(out, options.teacher, options), say)
            metrics, sentences = measured_agreement(done, out), partial(say_agreement, options.steps)
        else:
            sizes = sizes or Sizes()
            write_reviews(out, sizes, options.seed)
            write_untrained(out / "untrained", sizes, options.seed)
            say(
                f"# Made-up reviews with labels: {out}/labelled and {out}/few\n"
                f"# Reviews without labels: {out}/corpus.txt\n# Randomly initialised BERT: {out}/untrained"
            )
            done = run(steps_of_reviews(out, sizes, options), say)
            metrics, sentences = measured_accuracy(done), partial(say_accuracy, sizes)
        say("\n" + "\n".join([say_size(metrics), *sentences(metrics)]))
        say(f"\nAll files are in {out}; the page is {out / 'report' / 'report.html'}\n")
        summary = record("demo", replace(options, output=out), metrics)
        write_biography(out, [summary])
    return summary


def check_comparable(teacher: str) -> None:
    """Raise DistilkitError if a checkpoint has outputs that cannot be compared on plain text."""
    checkpoint.open_config(teacher)  # if it cannot be read, its own line says why
    try:
        find_teacher(teacher, teacher)
    except DistilkitError as error:
        raise DistilkitError(f"the demo compares models with eval --agreement, but {error}") from None


def run(steps: Iterator[Step], say: Callable[[str], None]) -> Done:
    """Run the steps; return their records by name."""
    done = {}
    for name, purpose, command, options in steps:
        line = command_line(command.__name__.replace("evaluate", "eval"), options)
        say(f"\n# {purpose}\n$ {line}")
        done[name] = command(options)
    return done


def steps_of_reviews(out: Path, sizes: Sizes, given: DemoOptions) -> Iterator[Step]:
    """Yield the steps with made-up reviews: train a teacher, shrink it without labels, compare with few labels."""
    seed = given.seed
    task: dict[str, Any] = {"data": str(out / "labelled"), "max_length": SEQ_LENGTH, "seed": seed}
    teacher = FinetuneOptions(
        model=f"{out}/untrained", output=out / "teacher", lr=5e-4, epochs=sizes.epochs, keep="last", **task
    )
    yield Step("teacher", "Train the teacher to tell what a review praises or criticises.", finetune, teacher)
    yield extraction(f"{out}/teacher", out, seed)
    student = DistillOptions(
        student=f"{out}/extracted", corpus=f"{out}/corpus.txt", heldout=f"{out}/heldout.txt", output=out / "student",
        split="lines", batch_size=32, lr=5e-4, steps=given.steps, seed=seed,
    )  # fmt: skip
    yield Step("student", "Distil: train the student with its teacher, on reviews without labels.", distill, student)
    control = FinetuneOptions(
        model=f"{out}/extracted", output=out / "control", keep="last", **task | {"data": str(out / "few")}
    )
    yield Step(
        "control", "Train the same student without the teacher, on few labels, as a baseline.", finetune, control
    )
    models = tuple(f"{out}/{name}" for name in REVIEWED)
    compared = EvalOptions(models=models, against=models[0], control=models[2:], task="custom", **task)
    yield Step("eval", "Compare student and baselines with the teacher.", evaluate, compared)
    yield from ending(models, out, seed)


def steps_of_teacher(out: Path, teacher: str, given: DemoOptions) -> Iterator[Step]:
    """Yield the steps with a checkpoint of the user: shrink it, and compare its outputs with the student's."""
    seed = given.seed
    yield extraction(teacher, out, seed)
    text: dict[str, Any] = {"corpus": f"{out}/corpus.txt", "heldout": f"{out}/heldout.txt", "seq_length": SEQ_LENGTH}
    if checkpoint.head_of(teacher) == "masked-lm":  # the full distribution at every token takes much longer
        text |= {"ce_positions": "masked", "batch_size": 16}
    student = DistillOptions(student=f"{out}/extracted", output=out / "student", steps=given.steps, seed=seed, **text)
    yield Step("student", "Distil: train the student with its teacher, on text.", distill, student)
    models = tuple(f"{out}/{name}" for name in COMPARED)
    compared = EvalOptions(
        models=models, against=teacher, agreement=f"{out}/heldout.txt", max_length=SEQ_LENGTH, seed=seed
    )
    yield Step(
        "eval", "Compare the student, before and after training, with the teacher on held-out text.", evaluate, compared
    )
    yield from ending((teacher, *models), out, seed)


def extraction(teacher: str, out: Path, seed: int) -> Step:
    """Return the step that makes the student."""
    options = InitOptions(teacher=teacher, output=out / "extracted", seed=seed)
    return Step("init", "Extract a student with half of the teacher's layers.", init, options)


def ending(models: tuple[str, ...], out: Path, seed: int) -> Iterator[Step]:
    """Yield the last steps, which are the same for every model."""
    speed = BenchOptions(models=models, devices=("cpu",), batch_sizes=(1,), seq_lengths=(SEQ_LENGTH,), seed=seed)
    yield Step("bench", "Measure size and speed.", bench, speed)
    page = ReportOptions(directories=(str(out),), output=out / "report", seed=seed)
    yield Step("report", "Put everything on one page.", report, page)


def measured_costs(done: Done, models: tuple[str, ...]) -> dict[str, float]:
    """Return size and speed of each model, in bench's order."""
    found = done["bench"].metrics
    return {
        f"{model}/{name.rpartition('/')[2]}": found[f"{position}/{name}"]
        for position, model in enumerate(models)
        for name in ("parameters", "bytes", SPEED)
    }


def measured_accuracy(done: Done) -> dict[str, float]:
    """Return the metrics of each model, and the student's difference to each baseline with its interval."""
    scores, metrics = done["eval"].metrics, measured_costs(done, REVIEWED)
    for position, model in enumerate(REVIEWED):
        metrics |= {
            f"{model}/accuracy": scores[f"{position}/custom/accuracy"],
            f"{model}/retention": scores[f"{position}/retention/custom"],
        }
    for position, baseline in enumerate(REVIEWED[2:]):
        for end in ("", "/low", "/high"):
            name = f"1/difference/custom/control-{position}{end}"
            metrics[f"student/difference/custom/{baseline}{end}"] = scores[name]
    return metrics


def measured_agreement(done: Done, out: Path) -> dict[str, float]:
    """Return size and speed, and how closely the student agrees with the teacher, before and after training."""
    scores, metrics = done["eval"].metrics, measured_costs(done, ("teacher", *COMPARED))
    for position, model in enumerate(COMPARED):
        prefix = f"{position}/"
        known = {name: scores[prefix + name] for name in AGREEMENT_METRICS if prefix + name in scores}
        metrics |= {f"{model}/{name}": value for name, value in known.items()}
    losses = [line["heldout_loss"] for line in read_log(out / "student") if "heldout_loss" in line]
    if losses:  # a masked LM's, before and after training
        metrics |= {"extracted/heldout_loss": losses[0], "student/heldout_loss": losses[-1]}
    return metrics


def say_size(metrics: Mapping[str, float]) -> str:
    """Say how much smaller and faster the student is."""
    share = metrics["student/parameters"] / metrics["teacher/parameters"]
    faster = metrics["teacher/latency_ms_p50"] / metrics["student/latency_ms_p50"]
    return f"The student has {share:.0%} of the teacher's parameters and is {faster:.1f} times as fast."


def say_accuracy(sizes: Sizes, metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield sentences on the accuracy of the models, and on whether the difference is significant."""
    teacher, student, control, extracted = (f"{metrics[f'{model}/accuracy']:.1%}" for model in REVIEWED)
    yield (
        f"On {sizes.validation:,} held-out reviews the student's accuracy is {student}. The teacher, trained on "
        f"{sizes.labelled:,} labels, reaches {teacher}. The same layers reach {extracted} before training, and "
        f"{control} after training on {sizes.few:,} labels without the teacher."
    )
    value, low, high = (100 * metrics[f"student/difference/custom/control{end}"] for end in ("", "/low", "/high"))
    significant = "significant" if low > 0 or high < 0 else "not significant: it may be chance"
    yield (
        f"Distillation on {sizes.unlabelled:,} unlabelled reviews changes the accuracy by {value:+.1f} points compared "
        f"with training on {sizes.few:,} labels (95 % confidence interval {low:+.1f} to {high:+.1f}). This difference "
        f"is {significant}."
    )


def say_agreement(steps: int, metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield sentences on how close the student is to its teacher, and how much of the gap distillation closed."""
    name, unit, what, best = agreement_in_words(metrics)
    student, extracted = (metrics[f"{model}/{name}"] for model in COMPARED)
    losses = [metrics.get(f"{model}/heldout_loss") for model in COMPARED]
    loss = f"; the masked-LM loss went from {losses[1]:.3f} to {losses[0]:.3f}" if None not in losses else ""
    yield (
        f"On {metrics[f'student/{unit}']:,.0f} {what} {student:.3f} after training and {extracted:.3f} before{loss}."
    )
    closed = (student - extracted) / (best - extracted) if best != extracted else 0.0
    if closed > 0:
        yield f"So {steps:,} updates of distillation closed {closed:.0%} of the gap to the teacher."
    else:
        yield (
            f"So {steps:,} updates of distillation brought the student no closer to the teacher: try more --steps, or "
            "a --corpus that is like your own texts."
        )


def agreement_in_words(metrics: Mapping[str, float]) -> tuple[str, str, str, float]:
    """Return the metric of agreement, the metric that counts the items, the metric in words, and its best value."""
    if "student/agreement/cosine" in metrics:
        what = "held-out texts, the mean cosine of the student's and the teacher's embeddings is"
        return "agreement/cosine", "difference/texts", what, 1.0
    if "student/difference" in metrics:
        what = "held-out texts, the mean difference between the student's and the teacher's outputs is"
        return "difference", "difference/texts", what, 0.0
    if "student/agreement/tokens" in metrics:
        what = "masked tokens of held-out text, the share on which the student predicts what the teacher predicts is"
        return "agreement", "agreement/tokens", what, 1.0
    what = "held-out texts, the share on which the student predicts what the teacher predicts is"
    return "agreement", "agreement/texts", what, 1.0
