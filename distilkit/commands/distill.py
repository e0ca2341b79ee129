"""`distill`: train a student on text, against its teacher or with masked LM alone."""

from distilkit.data.blocks import read_batches
from distilkit.distillation.cache_manifest import cache_seed
from distilkit.distillation.heldout import HeldoutEvaluator
from distilkit.distillation.teacher import check_length, open_teacher
from distilkit.distillation.teacher_cache import CachedBatches, fill_cache
from distilkit.distillation.text_objective import WEIGHTS, make_objective
from distilkit.encoders import checkpoint
from distilkit.errors import DistilkitError
from distilkit.options.distill import DistillOptions
from distilkit.record import Record, read_biography, record, write_biography
from distilkit.training.devices import claim_once, is_main_process, state, temporary_directory
from distilkit.training.learning_curve import draw_run
from distilkit.training.log import check_tracker
from distilkit.training.loop import train
from distilkit.training.memory import explain_out_of_memory, memory_suggestions
from distilkit.training.plan import calibrate
from distilkit.training.resume import remove_run_checkpoints


def distill(config: DistillOptions) -> Record:
    """Train a student on a corpus and write it with its record. `heldout_loss` is its masked-LM loss on unseen text."""
    check_tracker(config.log_with)
    student = checkpoint.open_model(config.student, "masked-lm", new_head=config.new_head)
    tokenizer = checkpoint.open_tokenizer(config.student, student)
    check_length(student, config.seq_length)
    if getattr(student.config, "default_language", "") is None:
        raise DistilkitError(f"'{config.student}' has one adapter per language: set default_language in config.json")
    lazily = config.objective == "mlm" or config.teacher_cache
    teacher = None if lazily else open_teacher(config, student, tokenizer)
    objective = make_objective(config, student, teacher)
    with (
        temporary_directory()
        if config.plan
        else claim_once(config.output, resume=config.resume, keep="checkpoint-*[0-9]") as out,
        explain_out_of_memory(less_memory(config), out),
    ):
        with state().main_process_first():  # the other processes then find the text in the cache
            batches, heldout = read_batches(config, tokenizer, cache_seed(config))
        evaluator = HeldoutEvaluator(heldout, teacher)
        cache = fill_cache(config, student, tokenizer, batches, evaluator) if config.teacher_cache else None
        if cache:
            batches = CachedBatches(cache, batch_size=config.batch_size, seed=config.seed)
        metrics = (calibrate if config.plan else train)(
            objective,
            batches,
            config,
            out,
            evaluate=lambda: evaluator.evaluate(student),
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
            remove_run_checkpoints(out)  # last, so that a killed run can still be resumed
    return done


def less_memory(config: DistillOptions) -> list[str]:
    """List options that reduce the memory of a run."""
    weight = WEIGHTS[config.objective].get("ce", 0.0) if config.alpha_ce is None else config.alpha_ce
    masked = ["use --ce-positions masked"] if weight and config.ce_positions == "all" else []
    return memory_suggestions(config, *masked, f"lower --seq-length (now {config.seq_length})")
