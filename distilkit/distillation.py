"""`distill`: train a student on text, against its teacher or by masked LM alone."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.batches import Batches
from distilkit.data.blocks import read_batches
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.examiner import Examiner
from distilkit.manifest import cache_seed, describe
from distilkit.objectives import PARTS, WEIGHTS, CachedDistillation, Distillation
from distilkit.options.distill import DistillOptions
from distilkit.pairing import check_length, map_layers, open_teacher, teacher_name
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.teacher_cache import CachedBatches, TeacherCache, load_array, save_array
from distilkit.training.devices import claimed, device, is_main_process, scratch, state
from distilkit.training.learning_curve import draw_run
from distilkit.training.log import check_tracker
from distilkit.training.loop import train
from distilkit.training.memory import explain_out_of_memory
from distilkit.training.plan import calibrate
from distilkit.training.resume import remove_run_checkpoints


def distill(config: DistillOptions) -> Record:
    """Train a student on a corpus and write it with its record; `heldout_loss` is its masked-LM loss on unseen text."""
    check_tracker(config.log_with)
    if config.streaming and not config.steps:
        raise DistilkitError("--streaming needs --steps: a stream doesn't say how long it is")
    if config.plan and config.teacher_cache:
        raise DistilkitError("--plan writes nothing, --teacher-cache asks to be filled: leave one out")
    if config.new_head and config.objective != "mlm":
        raise DistilkitError("--new-head goes with --objective mlm: train the head before you distil")
    student = checkpoint.open_model(config.student, "masked-lm", new_head=config.new_head)
    tokenizer = checkpoint.open_tokenizer(config.student, student)
    check_length(student, config.seq_length)
    if getattr(student.config, "default_language", "") is None:
        raise DistilkitError(
            f"'{config.student}' has adapters by language: name one as default_language in config.json"
        )
    lazily = config.objective == "mlm" or config.teacher_cache
    teacher = None if lazily else open_teacher(config, student, tokenizer)
    objective = make_objective(config, student, teacher)
    with (
        scratch() if config.plan else claimed(config.output, resume=config.resume, keep="checkpoint-*[0-9]") as out,
        explain_out_of_memory(config, out),
    ):
        with state().main_process_first():  # the others then find the text in the cache
            batches, heldout = read_batches(config, tokenizer, cache_seed(config))
        examiner = Examiner(heldout, teacher)
        cache = fill_cache(config, student, tokenizer, batches, examiner) if config.teacher_cache else None
        if cache:
            batches = CachedBatches(cache, batch_size=config.batch_size, seed=config.seed)
        metrics = (calibrate if config.plan else train)(
            objective,
            batches,
            config,
            out,
            evaluate=lambda: examiner.examine(student),
            evaluate_every=config.evaluate_every,
            label="distill" if config.objective != "mlm" else "masked LM",
        )
        if cache:
            metrics |= cache.metrics(config.batch_size * config.accumulate)
        done = record("distill", config, metrics | {"parameters": float(student.num_parameters())})
        if is_main_process() and not config.plan:
            draw_run(out)
            checkpoint.save(student, tokenizer, out)
            write_biography(out, [*read_biography(config.student), done])
            remove_run_checkpoints(out)  # last: killed before, it can still go on from them
    return done


def make_objective(config: DistillOptions, student: PreTrainedModel, teacher: PreTrainedModel | None) -> Distillation:
    """Build what --objective and the weights ask for."""
    given = {part: getattr(config, f"alpha_{part}") for part in PARTS}
    weights = WEIGHTS[config.objective] | {part: weight for part, weight in given.items() if weight is not None}
    asked = {part for part, weight in weights.items() if weight}
    if not asked:
        raise DistilkitError("every weight of the loss is 0, nothing to learn: raise an --alpha")
    if config.objective == "mlm" and asked != {"mlm"}:
        raise DistilkitError(f"--objective mlm has no teacher for {', '.join(sorted(asked - {'mlm'}))}: choose another")
    if config.ce_until < 1 and "mlm" not in asked:
        raise DistilkitError("--ce-until leaves masked LM alone, which has no weight: give --alpha-mlm")
    if config.teacher_cache:
        check_cacheable(config, asked)
        return CachedDistillation(student, weights, temperature=config.temperature, until=config.ce_until)
    return Distillation(
        student,
        teacher,
        weights,
        temperature=config.temperature,
        ce_positions=config.ce_positions,
        layer_map=() if teacher is None else map_layers(config.layer_map, student, teacher),
        hidden_loss=config.hidden_loss,
        until=config.ce_until,
    )


def check_cacheable(config: DistillOptions, parts: Collection[str]) -> None:
    """Refuse a --teacher-cache for losses that need more of the teacher than its answers at masked tokens."""
    if "ce" not in parts:
        raise DistilkitError("without soft targets there are no answers to keep: leave out --teacher-cache")
    if other := [part for part in PARTS if part in parts and part not in ("ce", "mlm")]:
        raise DistilkitError(f"--teacher-cache keeps nothing that {other[0]} needs: give --alpha-{other[0]} 0")
    if config.streaming:
        raise DistilkitError("--teacher-cache keeps answers by block, and a stream has no end: leave out --streaming")
    if config.ce_positions != "masked":
        raise DistilkitError("--teacher-cache keeps answers at masked tokens alone: give --ce-positions masked")
    directory = Path(str(config.teacher_cache)).absolute()
    if config.output.absolute() in (directory, *directory.parents):  # which is emptied where the run fails
        raise DistilkitError(f"--teacher-cache '{directory}' lies in the output directory: give one outside -o")


def fill_cache(
    config: DistillOptions,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: Batches,
    examiner: Examiner,
) -> TeacherCache:
    """Open --teacher-cache and give the examiner its answers; the teacher is opened only where one is missing."""
    assert config.teacher_cache is not None
    vocabulary = int(student.config.vocab_size)
    about = describe(config, teacher_name(config), tokenizer, vocabulary, batches.rows)
    processes = state()
    with processes.main_process_first():
        cache = TeacherCache(config.teacher_cache, batches.rows, tokenizer, about)
    missing, heldout = cache.missing(), cache.heldout(examiner.rows)
    asking = bool(missing) or not heldout.exists()
    processes.wait_for_everyone()  # all processes have to see the same missing
    if asking:
        teacher = open_teacher(config, student, tokenizer)
        cache.fill(
            missing[processes.process_index :: processes.num_processes], teacher, config.batch_size, config.precision
        )
        if processes.is_main_process:
            save_array(heldout, examiner.ask(teacher).cpu().numpy())
        processes.wait_for_everyone()
    answers = load_array(heldout)
    if answers.shape != (examiner.asked,):
        raise DistilkitError(f"'{heldout}' is damaged: delete it, and the teacher is asked again")
    examiner.answers = torch.from_numpy(np.array(answers)).to(device())
    return cache
