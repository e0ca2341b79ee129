"""Model cards: README.md of a checkpoint, with the hub's metadata, made from its records."""

import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distilkit.errors import DistilkitError
from distilkit.formatting import format_duration
from distilkit.hub import split_revision
from distilkit.progress import warn
from distilkit.record import Record
from distilkit.reporting.models import Model, Results, own_rows, scores_of, seed_warnings
from distilkit.reporting.provenance import Step, machines, seeds, training_seconds
from distilkit.reporting.render import fill
from distilkit.reporting.summary import description, display_name, task_retention, tiles
from distilkit.reporting.tables import headline_metrics, overview, sort_by_task
from distilkit.tasks.catalogue import HUB_TASKS, TASKS, Task
from distilkit.wording import metric_name, task_name

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
MARK = "<!-- Written by distilkit report. sha256 of what is above: {} -->\n"


def cards(results: Results, steps: list[Step], *, force: bool) -> dict[Path, str]:
    """Return the text of README.md for each of these checkpoints that distilkit made.

    Raises DistilkitError if there is none, and for a README.md that distilkit did not write, unless `force`.
    """
    made = [model for model in results.models if model.given and model.biography]
    models = [model for model in made if (Path(model.location) / "config.json").is_file()]
    for model in made:
        if models and model not in models:
            warn(f"no card for '{model.name}', which is not a checkpoint: give the checkpoints in it, '{model.name}/*'")
    if not models:
        raise DistilkitError(
            "--card finds no checkpoint that distilkit made: give the directory of one, or of several tasks"
        )
    written = {Path(model.location) / "README.md": card(results, model, steps) for model in models}
    for path in written:
        if os.path.lexists(path) and not path.is_file():
            raise DistilkitError(f"'{path}' is not a file: move it, so that --card can write one there")
        if path.exists() and not force and not is_ours(path.read_text(encoding="utf-8", errors="replace")):
            raise DistilkitError(
                f"'{path}' was not written by distilkit, or was changed since: move it, or overwrite it with --force"
            )
    return written


def is_ours(text: str) -> bool:
    """Say whether distilkit wrote a card and nobody changed it since."""
    above, mark, _ = text.rpartition(MARK.partition("{}")[0])
    return bool(mark) and text == signed(above)


def signed(text: str) -> str:
    """Append the line by which is_ours() recognises a card."""
    return text + MARK.format(hashlib.sha256(text.encode()).hexdigest())


def card(results: Results, model: Model, steps: list[Step]) -> str:
    """Return a model's card with its metadata."""
    mine = [
        step
        for step in steps
        if step.record in model.biography or model.location in step.record.config.get("models", ())
    ]
    text = fill(
        "model_card.md.jinja",
        name=Path(model.location).name,
        sentence=description(results, model),
        tiles=tiles(results, model),
        usage=usage(model),
        overview=overview(replace(results, models=[model])) if model.metrics else None,
        data=list(dict.fromkeys(data(results, model))),  # a student and its teacher have the same rows
        training=training(model),
        steps=mine,
        machines=machines(mine),
        limits=list(limits(results, model)),
    )
    return signed(str(ModelCard(f"---\n{metadata(model).to_yaml()}\n---\n\n{text}\n")))


PIPELINES = {  # the hub's names of tasks, by head
    "masked-lm": "fill-mask",
    "sentence-encoder": "sentence-similarity",
    "encoder": "feature-extraction",
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
}
LIBRARIES: dict[str | None, str] = {"sentence-similarity": "sentence-transformers"}


def metadata(model: Model) -> ModelCardData:
    """Return what the hub reads: base model, data sets, and the scores as a model index."""
    tasks = [TASKS[name] for name in dict.fromkeys(name for name, _ in sort_by_task(scores_of(model))) if name in TASKS]
    corpora = [str(step.config["corpus"]).partition(":")[0] for step in model.training if step.config.get("corpus")]
    hub_rows = [] if own_rows(model.biography) else [task.dataset for task in tasks]
    datasets = dict.fromkeys([*filter(HUB_ID.fullmatch, filter(on_hub, corpora)), *hub_rows])
    return ModelCardData(
        license="other",  # to be filled in: the records do not know it
        license_name="to-be-filled-in",
        base_model=base_model(model),
        datasets=list(datasets) or None,
        library_name=LIBRARIES.get(pipeline(model), "transformers"),
        pipeline_tag=pipeline(model),
        tags=["distilkit", "knowledge-distillation"],
        model_name=Path(model.location).name,
        eval_results=list(eval_results(model)) or None,
    )


def on_hub(name: str) -> bool:
    """Return whether a recorded name is a hub id. Local paths are recorded as absolute paths."""
    return not Path(name).is_absolute()


def usage(model: Model) -> str:
    """Return Python code that loads the model and calls it."""
    place = Path(model.location).name
    if (Path(model.location) / "modules.json").is_file():
        return (
            f'from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer("{place}")\n'
            'embeddings = model.encode(["A first sentence.", "A second one."])'
        )
    task = pipeline(model)
    if task is None:
        return f'from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained("{place}")'
    call = f'from transformers import pipeline\n\nmodel = pipeline("{task}", model="{place}")\n'
    if task == "fill-mask":
        return call + 'model(f"The capital of France is {model.tokenizer.mask_token}.")'
    if task == "question-answering":
        return call + 'model(question="Where is Rome?", context="Rome is in Italy.")'
    return call + (
        'model({"text": "A first text.", "text_pair": "A second one."})' if has_pairs(model) else 'model("A text.")'
    )


def has_pairs(model: Model) -> bool:
    """Return whether a row of the model's input has two texts."""
    tuned = tuned_last(model)
    config = tuned.config if tuned else {}
    task = TASKS.get(str(config.get("task")))
    return len(task.text if task else config.get("text") or ()) > 1


def base_model(model: Model) -> str | None:
    """Return the hub id of the model that this one comes from: its teacher, or the start of its first training."""
    starts = [step.config.get("teacher") for step in model.history_since("init")[:1]]
    for step in model.biography[:1]:  # the task teacher of a fine-tuned model is not its base model
        starts += [
            step.config.get(name) for name in (("model",) if step.command == "finetune" else ("teacher", "student"))
        ]
    ids = (split_revision(str(start))[0] for start in starts if start)
    return next((name for name in ids if HUB_ID.fullmatch(name)), None)


def pipeline(model: Model) -> str | None:
    """Return the hub's name of the model's task."""
    last = next((step for step in reversed(model.biography) if step.command in ("init", "distill", "finetune")), None)
    if last is None:
        return None
    if last.command != "finetune":
        return PIPELINES.get(last.environment.get("head", "masked-lm"))
    task = TASKS.get(str(last.config.get("task")))
    return hub_task(task, last)


def hub_task(task: Task | None, done: Record | None) -> str:
    """Return the hub's name of a task. For a custom task, it depends on the kind of its labels."""
    kind = done.config.get("kind") if done else None
    return HUB_TASKS[task.kind if task else "tokens" if kind == "tokens" else "classification"]


def eval_results(model: Model) -> Iterator[EvalResult]:
    """Yield the scores of a model in the hub's form."""
    tuned = tuned_last(model)
    several = int(tuned.config.get("seeds") or 1) if tuned else 1
    local = own_rows(model.biography)
    for task, metric in sort_by_task(scores_of(model)):
        value = model.metrics[f"{task}/{metric}"]
        row = TASKS.get(task.removesuffix("_mismatched"))
        own = Path(str(tuned.config.get("data") or task)).name if tuned else task
        name = metric_name(metric)
        if math.isfinite(value):
            yield EvalResult(
                task_type=hub_task(row, tuned),
                dataset_type=row.dataset if row and not local else own,
                dataset_name=task_name(task) if row else own,
                dataset_config=row.subset if row and not local else None,
                dataset_split="test"
                if task in model.tested
                else next((split for prefix, split in row.splits if prefix == task), None)
                if row
                else "validation",
                metric_type=metric,
                metric_value=value,
                metric_name=f"{name}, median of {several} seeds" if several > 1 else name,
                verified=False,
            )


def tuned_last(model: Model) -> Record | None:
    """Return the record of the last fine-tuning."""
    return next((step for step in reversed(model.biography) if step.command == "finetune"), None)


def data(results: Results, model: Model) -> Iterator[str]:
    """Describe the text and the labelled rows that a model was trained on."""
    for step in model.biography:
        if step.command == "distill":
            how = "masked LM" if step.config.get("objective") == "mlm" else "distillation"
            amount = f", {step.metrics['tokens']:,.0f} tokens read" if "tokens" in step.metrics else ""
            whose = display_name(results, str(step.config.get("output") or ""))
            yield f"{display_name(results, step.config.get('corpus'))}: {how} ({whose}){amount}"
        if step.command == "finetune":
            task = str(step.config.get("task"))
            row, place = TASKS.get(task), step.config.get("data")
            source = Path(str(place)).name if place else row.dataset if row else "the hub"
            yield f"{results.task_name(task)}, training rows from {source}: fine-tuning"


def training(model: Model) -> str:
    """Describe how long training took, and with which seeds."""
    trained = [step for step in model.biography if step.command in ("distill", "finetune")]
    if not trained:
        return "It was not trained after layers were removed."
    took = training_seconds(trained)
    runs = ", ".join(f"{step.command} {seeds(step)}" for step in trained)
    hours = (
        f"Training took {took / 3600:.2f} hours ({format_duration(took)}) in all"
        if took
        else "The training time is not recorded"
    )
    return f"{hours}: {runs}."


def limits(results: Results, model: Model) -> Iterator[str]:
    """Yield the limits of a model that follow from its records."""
    yield "The model may repeat errors and biases of its teacher and training text. This was not measured."
    if any(step.environment.get("weights") == "random" for step in model.biography) and not model.training:
        yield "All weights are random. Train this checkpoint before use."
    elif (own := model.history_since("init")) and not any(step.command in ("distill", "finetune") for step in own):
        yield "Layers were removed without further training. Distil or fine-tune this checkpoint before use."
    for step in model.training[-1:]:
        if length := step.config.get("seq_length"):
            yield f"It was trained on blocks of {length} tokens, so longer inputs are untested."
    if any(step.command == "init" and step.config.get("vocabulary") for step in model.biography):
        yield "Its vocabulary was pruned to the tokens of one text, so other text is split into more tokens."
    if headline_metrics([model]):
        rows = "public test rows" if model.tested else "validation rows"
        yield f"Scores are on {rows}, not on a hidden test set."
    tuned = tuned_last(model)
    if tuned and int(tuned.config.get("seeds") or 1) == 1:
        yield "Scores come from one seed, so small differences may be due to chance."
    yield from seed_warnings(model)
    if model.role == "student" and not any(
        task_retention(other) for other in results.models if results.role(other) in model.control_roles
    ):
        yield "No baseline had the same training without the teacher, so the effect of the teacher is unknown."
    if any("/latency_ms_" in name for name in model.metrics):
        yield "Latencies were measured on one machine, on random tokens without padding."
    yield "No licence is given: fill it in at the top. The licences of the base model and of the data apply."
