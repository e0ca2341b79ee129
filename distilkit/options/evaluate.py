"""Options of `eval`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distilkit.options.spec import argument, flag, option
from distilkit.options.tasks import ScoredTaskName, TaskOptions
from distilkit.options.values import inside_text

FOR_MODELS = ("max_length", "stride", "n_best", "max_answer_length")
FOR_TASKS = (
    *(
        "data",
        "text",
        "label",
        "kind",
        "metric",
        "validation_split",
        "long",
        "stride",
        "n_best",
        "max_answer_length",
        "null_threshold",
    ),
    *("control", "predictions", "null_odds", "write_predictions", "passages_from"),
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvalOptions(TaskOptions, panel="Comparison"):
    """Score checkpoints on a task, and compare them with a teacher.

    With --agreement, compare them with their teacher on text without labels.
    """

    usage = (
        "distilkit eval student-sst2 --task sst2 --against teacher-sst2",
        "distilkit eval student-sst2 --task sst2 --against teacher-sst2 --require 'retention/sst2>=0.97'",
        "distilkit eval student --agreement heldout.txt",
    )

    models: tuple[str, ...] = argument(
        "Checkpoints to score: directories or hub ids. For --task glue: a directory with one checkpoint per task.",
        "[MODEL…]",
        (),
    )
    task: ScoredTaskName | None = option(
        "Task; glue stands for all nine GLUE tasks, custom for your own rows. For sentence encoders: sts (similarity "
        "of text pairs) and retrieval (finding the passages that answer a query). Default: the task, rows and columns "
        "that MODEL was fine-tuned on.",
        None,
        panel="Task",
    )
    against: str | None = option(
        "Teacher to compare with: adds retention and differences, with 95 % confidence intervals (default: none; for "
        "--agreement the recorded teacher).",
        None,
        metavar="MODEL",
        is_path=True,
    )
    control: tuple[str, ...] = option(
        "Baseline checkpoint to compare with as well, for example one trained without the teacher. Repeatable.",
        (),
        is_path=True,
    )
    predictions: Path | None = option(
        "Prediction file to score instead of models, {id: text} (.gz too), for squad and squad_v2.",
        None,
        metavar="FILE",
        panel="SQuAD",
    )
    null_odds: Path | None = option(
        "With --predictions for squad_v2: file {id: log-odds of no answer}; adds the best thresholds.",
        None,
        metavar="FILE",
        panel="SQuAD",
    )
    write_predictions: Path | None = option(
        "Write predictions to this folder: GLUE leaderboard files (test splits), predictions.json and null_odds.json "
        "for SQuAD, TSV for other tasks.",
        None,
        metavar="DIR",
        panel="Input and output",
    )
    passages_from: str | None = option(
        "Encoder of the passages for --task retrieval, for example the teacher (default: each MODEL itself).",
        None,
        metavar="MODEL",
        is_path=True,
    )
    agreement: str | None = option(
        "Text without labels on which to compare checkpoints with their teacher. Same formats as for distill. "
        "Masked-LM models are compared at masked tokens, classifiers with one document per row.",
        None,
        metavar="TEXT",
        is_path=True,
    )
    examples: Path | None = option(
        "Write to this file the texts on which a model differs most from its teacher: a few from each slice, such as "
        "texts of similar length or texts with digits (requires --agreement).",
        None,
        metavar="FILE.jsonl",
    )
    plot: Path | None = option(
        "Write a reliability diagram to this file: agreement against student and teacher confidence (requires "
        "--agreement).",
        None,
        metavar="FILE.svg|png",
    )
    baseline: Path | None = option(
        "Record of an earlier eval (from --json, or an eval-….json in a checkpoint's folder). Its metrics are shown, "
        "and gates may use them.",
        None,
        metavar="FILE",
        is_path=True,
    )
    require: tuple[str, ...] = option(
        "Gate such as 'sst2/accuracy>=0.90', or with --baseline 'sst2/accuracy>=baseline-0.01'; exit code 3 if it is "
        "not met. Repeatable.",
        (),
    )
    batch_size: int = option("Sequences per forward pass.", 32, min=1, max=2**20, panel="Advanced")

    def rules(self) -> Iterator[str]:
        if not self.baseline and any("baseline" in gate for gate in self.require):
            yield "--require compares with an earlier eval: give its record as --baseline"
        yield from self._rules_of_agreement()
        if self.agreement and not self.task:
            yield from self.unused(FOR_TASKS, "requires --task: give one, or remove it")
            return
        yield from self._rules_of_retrieval()
        if self.control and not self.against:
            yield "--control requires a teacher: give one as --against"
        if self.null_odds and not (self.predictions and self.task == "squad_v2"):
            yield "--null-odds requires --predictions and --task squad_v2: remove it"
        if self.write_predictions and len(self.models) != 1:
            yield "--write-predictions takes exactly one MODEL: give one"
        if not self.predictions and not self.models:
            yield "no MODEL: give one or more, or a SQuAD prediction file as --predictions"
        if self.predictions:
            yield from self._rules_of_predictions()

    def _rules_of_agreement(self) -> Iterator[str]:
        if not self.agreement and (self.examples or self.plot):
            yield "--examples and --plot require --agreement: give a text as --agreement"
        if self.agreement and not self.models:
            yield "--agreement compares a MODEL with its teacher: give a MODEL"
        for name in ("examples", "plot", "write_predictions"):
            if output := getattr(self, name):
                yield from inside_text(flag(name), output, agreement=self.agreement)

    def _rules_of_retrieval(self) -> Iterator[str]:
        if self.passages_from and self.task != "retrieval":
            yield f"--passages-from requires --task retrieval, not {self.task}: remove it"
        if self.task == "retrieval" and not self.data:
            yield "--task retrieval requires --data: a file of pairs, SQuAD's JSON, or a folder of BEIR"
        if self.task == "retrieval" and self.label:
            yield "--label does not apply to --task retrieval: remove it"

    def _rules_of_predictions(self) -> Iterator[str]:
        if self.models or self.against:
            yield "--predictions is scored without a model: remove MODEL and --against"
        yield from self.unused(FOR_MODELS, "has no effect with --predictions, which runs no model: remove it")
        if not self.null_odds:
            yield from self.unused(("null_threshold",), "applies to models and --null-odds: give one of them")
        if self.task not in ("squad", "squad_v2"):
            yield f"--predictions requires --task squad or squad_v2, not {self.task}: remove it"
