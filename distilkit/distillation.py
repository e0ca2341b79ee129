"""`distill`: train a student on text, against its teacher or by masked LM alone."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit import checkpoint, corpus, vocabulary
from distilkit.config import DistillConfig
from distilkit.curve import draw_run
from distilkit.errors import DistilkitError
from distilkit.memory import shortage_named
from distilkit.objectives import PARTS, WEIGHTS, Distillation
from distilkit.plan import calibrate
from distilkit.processes import claimed, device, is_main_process, scratch, state
from distilkit.record import Record, read_biography, record, remembered_teacher, write_biography
from distilkit.snapshot import remove_snapshots
from distilkit.states import logits_at
from distilkit.tracker import check_tracker
from distilkit.training import Batches, Collate, train

HELDOUT_BATCH = 32  # fixed, so that held-out masks are the same whatever the run


def distill(config: DistillConfig) -> Record:
    """Train a student on a corpus and write it with its record; `heldout_loss` is its masked-LM loss on unseen text."""
    check_tracker(config.log_with)
    if config.new_head and config.objective != "mlm":
        raise DistilkitError("--new-head goes with --objective mlm: train the head before you distil")
    student = checkpoint.open_model(config.student, "masked-lm", new_head=config.new_head)
    tokenizer = checkpoint.open_tokenizer(config.student)
    check_length(student, config.seq_length)
    if getattr(student.config, "default_language", "") is None:
        raise DistilkitError(
            f"'{config.student}' has adapters by language: name one as default_language in config.json"
        )
    teacher = None if config.objective == "mlm" else open_teacher(config, student, tokenizer)
    objective = make_objective(config, student, teacher)
    with (
        scratch() if config.plan else claimed(config.output, resume=config.resume, keep="checkpoint-*[0-9]") as out,
        shortage_named(config, out),
    ):
        with state().main_process_first():  # the others then find the text in the cache
            blocks, heldout = read_blocks(config, tokenizer)
        collate = corpus.masked_batch(tokenizer, config.mask_probability)
        examiner = Examiner(heldout, collate, teacher)
        metrics = (calibrate if config.plan else train)(
            objective,
            Batches(blocks, collate, batch_size=config.batch_size, seed=config.seed),
            config,
            out,
            evaluate=lambda: examiner.examine(student),
            evaluate_every=config.evaluate_every,
            label="distill" if config.objective != "mlm" else "masked LM",
        )
        done = record("distill", config, metrics | {"parameters": float(student.num_parameters())})
        if is_main_process() and not config.plan:
            draw_run(out)
            checkpoint.save(student, tokenizer, out)
            write_biography(out, [*read_biography(config.student), done])
            remove_snapshots(out)  # last: killed before, it can still go on from them
    return done


def make_objective(config: DistillConfig, student: PreTrainedModel, teacher: PreTrainedModel | None) -> Distillation:
    """Build what --objective and the weights ask for."""
    given = {part: getattr(config, f"alpha_{part}") for part in PARTS}
    weights = WEIGHTS[config.objective] | {part: weight for part, weight in given.items() if weight is not None}
    asked = {part for part, weight in weights.items() if weight}
    if not asked:
        raise DistilkitError("every weight of the loss is 0, nothing to learn: raise an --alpha")
    if teacher is None and asked != {"mlm"}:
        raise DistilkitError(f"--objective mlm has no teacher for {', '.join(sorted(asked - {'mlm'}))}: choose another")
    if config.ce_until < 1 and "mlm" not in asked:
        raise DistilkitError("--ce-until leaves masked LM alone, which has no weight: give --alpha-mlm")
    return Distillation(
        student,
        teacher,
        weights,
        temperature=config.temperature,
        ce_positions=config.ce_positions,
        layer_map=() if teacher is None else map_layers(config.layer_map, student, teacher),
        until=config.ce_until,
    )


def open_teacher(
    config: DistillConfig, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Open the teacher that --teacher or the student's biography names, and refuse one that doesn't fit."""
    name = config.teacher or remembered_teacher(config.student)
    if name is None:
        raise DistilkitError(f"'{config.student}' does not say what it was made from: name the teacher with --teacher")
    teacher = checkpoint.open_model(name, "masked-lm")
    theirs = checkpoint.open_tokenizer(name)
    if has_fewer_tokens(config.student):
        teacher, theirs = vocabulary.prune(teacher, vocabulary.shared_ids(tokenizer, theirs)), tokenizer
    check_pair(student, teacher, checkpoint.same_vocabulary(tokenizer, theirs))
    check_length(teacher, config.seq_length)
    return teacher


def map_layers(given: tuple[int, ...] | None, student: PreTrainedModel, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher's layer for each of the student's: as given, or evenly spread with the last for the last.

    Evenly spread is TinyBERT's map (Jiao et al. 2020, section 4.1): for 4 of 12 the layers 2, 5, 8 and 11.
    Raises DistilkitError where a layer isn't there or the numbers don't fit.
    """
    ours, theirs = (model.config.num_hidden_layers for model in (student, teacher))
    even = [round((i + 1) * theirs / ours) - 1 for i in range(ours)]
    layers = even if given is None else [*even[:-1], *given] if len(given) == 1 else list(given)
    if len(layers) != ours or not all(0 <= layer < theirs for layer in layers):
        raise DistilkitError(
            f"--layer-map {','.join(map(str, layers))} does not fit: give one number or {ours}, from 0 to {theirs - 1}"
        )
    return layers


def has_fewer_tokens(student: str) -> bool:
    """Say whether a checkpoint's vocabulary was cut when it was made."""
    return any(entry.command == "init" and entry.config.get("vocabulary") for entry in read_biography(student))


def check_pair(student: PreTrainedModel, teacher: PreTrainedModel, same_vocabulary: bool) -> None:
    """Refuse a teacher from whom the student can't learn: another vocabulary, or the very same weights."""
    if not same_vocabulary or student.config.vocab_size != teacher.config.vocab_size:
        raise DistilkitError(
            "teacher and student have different vocabularies: give a --teacher with the student's tokenizer"
        )
    mine, theirs = student.state_dict(), teacher.state_dict()
    if mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine):
        raise DistilkitError(
            "teacher and student have identical weights, nothing to learn: make a student with distilkit init"
        )


def check_length(model: PreTrainedModel, seq_length: int) -> None:
    """Refuse blocks that are longer than the model's positions."""
    positions = checkpoint.max_tokens(model)
    if positions is not None and seq_length > positions:
        raise DistilkitError(f"--seq-length {seq_length} is longer than the model's {positions} positions: lower it")


def read_blocks(config: DistillConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, Dataset]:
    """Return the packed blocks to train on and those held out."""
    blocks = corpus.pack(corpus.read_documents(config.corpus), tokenizer, config.seq_length)
    if config.heldout is None:
        return corpus.split(blocks, config.seed)
    heldout = corpus.pack(corpus.read_documents(config.heldout), tokenizer, config.seq_length)
    return blocks, heldout.select(range(min(len(heldout), corpus.HELDOUT_BLOCKS)))


class Examiner:
    """Examines a student on text kept apart, always masked alike; the teacher is asked once, when it is made."""

    def __init__(self, blocks: Dataset, collate: Collate, teacher: PreTrainedModel | None) -> None:
        numbered = Batches(blocks, collate, batch_size=HELDOUT_BATCH, seed=0)
        self.batches = [numbered[number] for number in range(numbered.per_epoch)]
        self.answers: list[Tensor] = []
        if teacher is not None:
            teacher.eval().to(device())
            self.answers = [logits.argmax(-1) for logits, _ in self._predict(teacher)]

    @torch.no_grad()
    def _predict(self, model: PreTrainedModel) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (M, V) and labels (M,) of each batch's masked tokens."""
        for batch in self.batches:
            inputs = send_to_device(batch, next(model.parameters()).device)
            labels = inputs.pop("labels").flatten()
            masked = (labels != -100).nonzero().squeeze(-1)
            yield logits_at(model, inputs, masked)[1].float(), labels[masked]

    def examine(self, student: PreTrainedModel) -> dict[str, float]:
        """Return the mean masked-LM loss and, with a teacher, the share of masked tokens that both predict alike."""
        training = student.training
        student.eval()
        loss = agreed = count = 0.0
        for number, (logits, labels) in enumerate(self._predict(student)):
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            agreed += float((logits.argmax(-1) == self.answers[number]).sum()) if self.answers else 0.0
            count += len(labels)
        student.train(training)
        return {"heldout_loss": loss / count} | ({"heldout_agreement": agreed / count} if self.answers else {})
