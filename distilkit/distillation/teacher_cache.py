"""The teacher's predictions at masked tokens, on disk: computed once, read by all later epochs and runs.

A cache directory contains manifest.json, which describes what it was made for; part-*.npy, the predictions for
PART_BLOCKS blocks each; and heldout-*.npy, the teacher's top-1 predictions on held-out text. Files are written under a
temporary name and renamed when complete. An interrupted fill therefore continues with the missing parts.
"""

import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilkit.data.batches import Batches
from distilkit.data.masking import mask_tokens
from distilkit.distillation.cache_manifest import (
    COSTS,
    claim_cache,
    describe,
    fingerprint,
    read_manifest,
    save_manifest,
)
from distilkit.distillation.heldout import HeldoutEvaluator
from distilkit.distillation.teacher import open_teacher, teacher_name
from distilkit.encoders.forward import masked_lm_logits
from distilkit.errors import DistilkitError
from distilkit.files import replacing, writing
from distilkit.options.distill import DistillOptions
from distilkit.progress import say, track
from distilkit.training.devices import autocast_dtype, device, is_main_process, keep_freed_memory, state

Row = dict[str, Any]
Array = npt.NDArray[Any]
PART_BLOCKS = 1024  # blocks per file; an interruption costs at most one file
MAX_OPEN_PARTS = 256  # files that are memory-mapped at the same time


class TeacherCache:
    """Blocks of text with fixed masks and the teacher's predictions: the rows of training batches.

    The mask depends only on the cache's seed, the number of the masking and the number of the block. It is the same in
    every epoch, batch, process and run. A prediction is stored as sampled tokens and an entropy, the inputs of
    losses.kl_sampled. `wanted` is the manifest that this run needs, from cache_manifest.describe().
    Raises DistilkitError if the directory contains something else.
    """

    def __init__(
        self,
        directory: Path,
        blocks: Sequence[Row],
        tokenizer: PreTrainedTokenizerBase,
        wanted: Mapping[str, Any],
        part_blocks: int = PART_BLOCKS,
    ) -> None:
        self.directory, self.blocks, self.tokenizer, self.masking = directory, blocks, tokenizer, 0
        self.manifest, self.part_blocks = claim_cache(directory, wanted), part_blocks
        self.size, self.maskings = int(wanted["cache_size"]), int(wanted["cache_maskings"])
        self.probability = float(wanted["mask_probability"])
        self.max_masked = math.ceil(self.probability * wanted["seq_length"])  # masked tokens per block
        self.vocabulary = int(wanted["vocabulary"])
        ids = np.min_scalar_type(self.vocabulary - 1)
        self.dtype = np.dtype([("ids", ids, (self.size,)), ("values", "f2", (1,))])
        self._part = lru_cache(MAX_OPEN_PARTS)(self._open)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, block: int) -> Row:
        """Return a block in the current masking: input_ids, labels (T,), teacher_ids (M, K), teacher_values (M, 1)."""
        number = self.masking * len(self) + block
        row = self.mask(number)
        predictions = self._part(number // self.part_blocks)[number % self.part_blocks]
        predictions = predictions[: int((row["labels"] != -100).sum())]
        return row | {
            "teacher_ids": torch.from_numpy(predictions["ids"].astype(np.int64)),
            "teacher_values": torch.from_numpy(predictions["values"].astype(np.float32)),
        }

    def mask(self, number: int) -> Row:
        """Mask a block. Numbers 0 to N - 1 are the first masking of the N blocks, N to 2·N - 1 the second."""
        masking, block = divmod(number, len(self))
        ids = torch.from_numpy(np.asarray(self.blocks[block]["input_ids"]).astype(np.int64))
        generator = make_generator(self.manifest["seed"], masking, block)
        corrupted, labels = mask_tokens(ids[None], self.tokenizer, self.probability, [generator])
        return {"input_ids": corrupted[0], "labels": labels[0]}

    def collate(self, rows: list[Row], _generators: Any = None) -> dict[str, Tensor]:
        """Stack rows, padded with an attention_mask if their lengths differ, and concatenate their predictions."""
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": -100}
        batch = {
            name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=padding)
            for name, padding in fill.items()
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        if (lengths != lengths[0]).any():
            batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        predictions = [name for name in ("teacher_ids", "teacher_values") if name in rows[0]]
        return batch | {name: torch.cat([row[name] for row in rows]) for name in predictions}

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not on disk yet."""
        parts = math.ceil(self.maskings * len(self) / self.part_blocks)
        return [part for part in range(parts) if not self._path(part).exists()]

    def fill(self, parts: list[int], teacher: PreTrainedModel, batch_size: int, precision: str = "fp32") -> None:
        """Compute and write some parts. The main process adds the time to the manifest."""
        keep_freed_memory()
        teacher.eval().to(device())
        total = sum(len(self._numbers(part)) for part in parts)
        with track("run the teacher", total, unit="blocks") as advance:
            for part in parts:
                started, teacher_seconds, numbers = time.monotonic(), 0.0, self._numbers(part)
                predictions = np.zeros((len(numbers), self.max_masked), self.dtype)
                for start in range(0, len(numbers), batch_size):
                    rows = slice(start, start + batch_size)
                    teacher_seconds += self._predict(teacher, numbers[rows], predictions[rows], precision)
                    advance(len(numbers[rows]))
                save_array(self._path(part), predictions)
                if is_main_process():
                    self._record_cost(len(numbers), time.monotonic() - started, teacher_seconds)

    def _predict(self, teacher: PreTrainedModel, numbers: range, predictions: Array, precision: str) -> float:
        """Write the predictions for some rows to `predictions` (n, M); return the seconds spent in the teacher."""
        inputs = send_to_device(self.collate([self.mask(number) for number in numbers]), device())
        masked = inputs.pop("labels") != -100  # (n, T)
        started = time.monotonic()
        dtype = autocast_dtype(precision)
        autocast = torch.autocast(device().type, dtype or torch.bfloat16, enabled=dtype is not None)
        with torch.no_grad(), autocast:
            logits = masked_lm_logits(teacher, inputs, masked.flatten().nonzero().squeeze(-1))[1]
        if logits.is_cuda:
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
        generator = make_generator(self.manifest["seed"], -1, numbers[0], device=logits.device)
        ids, values = sample_tokens(logits, self.size, self.manifest["temperature"], generator)
        used = np.arange(self.max_masked) < masked.sum(1).cpu().numpy()[:, None]  # (n, M)
        predictions["ids"][used], predictions["values"][used] = ids.cpu().numpy(), values.cpu().numpy()
        return seconds

    def _record_cost(self, blocks: int, seconds: float, teacher_seconds: float) -> None:
        for name, value in zip(COSTS, (blocks, seconds, teacher_seconds), strict=True):
            self.manifest[name] = self.manifest.get(name, 0) + value
        save_manifest(self.directory, self.manifest)

    def heldout(self, blocks: Sequence[Row]) -> Path:
        """Return the path of the teacher's top-1 predictions on these held-out blocks."""
        return self.directory / f"heldout-{fingerprint(blocks)[0][:16]}.npy"

    def metrics(self, rows_per_update: int) -> dict[str, float]:
        """Return the cost and the gain of the cache, and print them.

        The time saved per update is the time the teacher took per block while the cache was filled. From epoch
        `break_even_epoch` on, a run that filled the cache is ahead of a run with a live teacher.
        """
        recorded = read_manifest(self.directory)  # The main process alone recorded the costs.
        size = sum(path.stat().st_size for path in self.directory.glob("part-*.npy"))
        blocks, fill, teacher = (float(recorded.get(name, 0)) for name in COSTS)
        costs = {
            "cache/bytes_per_token": size / max(recorded["tokens"], 1),
            "cache/fill_seconds": fill,
            "cache/seconds_saved_per_update": teacher / max(blocks, 1) * rows_per_update,
            "cache/break_even_epoch": self.maskings * fill / max(teacher, 1e-9),
        }
        per_token, _, saved, epoch = costs.values()
        if is_main_process():
            say(
                f"the teacher cache takes {per_token:.1f} bytes per token, was filled in {fill:.0f} s and saves about "
                f"{saved:.3f} s per update: it pays off from epoch {epoch:.2f} on, and in later runs from the start"
            )
        return costs

    def _numbers(self, part: int) -> range:
        """Return the numbers of the masked blocks in a part, as in mask()."""
        return range(part * self.part_blocks, min((part + 1) * self.part_blocks, self.maskings * len(self)))

    def _path(self, part: int) -> Path:
        return self.directory / f"part-{part:06d}.npy"

    def _open(self, part: int) -> Array:
        predictions = load_array(self._path(part))
        if predictions.dtype != self.dtype or predictions.shape != (len(self._numbers(part)), self.max_masked):
            raise damaged(self._path(part))
        if predictions.size and predictions["ids"].max() >= self.vocabulary:
            raise damaged(self._path(part))
        return predictions


class CachedBatches(Batches):
    """Batches of a cache's rows. Every epoch has its own order, and the maskings are used epoch by epoch in turn."""

    rows: TeacherCache

    def __init__(self, cache: TeacherCache, *, batch_size: int, seed: int) -> None:
        super().__init__(cache, cache.collate, batch_size=batch_size, seed=seed)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        self.rows.masking = number // self.per_epoch % self.rows.maskings
        return super().__getitem__(number)


def sample_tokens(logits: Tensor, size: int, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return ids sampled from logits (M, V) at the temperature (M, K), and the entropy in nats (M, 1)."""
    log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
    p = log_p.exp()
    ids = torch.multinomial(p, size, replacement=True, generator=generator)
    return ids.sort(dim=1).values, torch.special.entr(p).sum(1, keepdim=True).half()


def make_generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a random generator seeded by these numbers, the same in every process."""
    return torch.Generator(device).manual_seed(hash(numbers) % 2**63)


def save_array(path: Path, array: Array) -> None:
    """Write a .npy file atomically, because several runs may fill the same cache."""
    with writing(path), replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def load_array(path: Path) -> Array:
    """Memory-map a .npy file.

    Raises DistilkitError if it is damaged.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
    except (OSError, ValueError, EOFError):  # NumPy raises the last two for truncated and empty files
        array = None
    if not isinstance(array, np.ndarray):  # a .npz has several
        raise damaged(path)
    return array


def damaged(path: Path) -> DistilkitError:
    """Return the error for a damaged file of a cache."""
    return DistilkitError(f"'{path}' is damaged: delete it to compute it again")


def fill_cache(
    options: DistillOptions,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: Batches,
    evaluator: HeldoutEvaluator,
) -> TeacherCache:
    """Open --teacher-cache, compute what is missing, and give the evaluator the teacher's held-out predictions.

    The teacher is opened only if something is missing.
    """
    assert options.teacher_cache is not None
    vocabulary = int(student.config.vocab_size)
    wanted = describe(options, teacher_name(options), tokenizer, vocabulary, batches.rows)
    processes = state()
    with processes.main_process_first():
        cache = TeacherCache(options.teacher_cache, batches.rows, tokenizer, wanted)
    missing, heldout = cache.missing(), cache.heldout(evaluator.rows)
    incomplete = bool(missing) or not heldout.exists()
    processes.wait_for_everyone()  # Every process must list the missing parts before one of them writes any.
    if incomplete:
        teacher = open_teacher(options, student, tokenizer)
        mine = missing[processes.process_index :: processes.num_processes]
        cache.fill(mine, teacher, options.batch_size, options.precision)
        if processes.is_main_process:
            save_array(heldout, evaluator.predict(teacher).cpu().numpy())
        processes.wait_for_everyone()
    predictions = load_array(heldout)
    if predictions.shape != (evaluator.masked_tokens,) or predictions.dtype.kind not in "iu":
        raise damaged(heldout)
    evaluator.teacher_predictions = torch.from_numpy(np.array(predictions)).to(device())
    return cache
