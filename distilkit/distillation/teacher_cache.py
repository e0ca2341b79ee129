"""The teacher's answers at masked tokens, on the disk: asked once, used by every later epoch and run.

A directory holds manifest.json, which says what the answers are to; part-*.npy, the answers to PART blocks each; and
heldout-*.npy, the teacher's first choices on held-out text. A file under its own name is whole, so a filling that was
interrupted goes on with the parts that are missing.
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
    claim_cache,
    describe,
    fingerprint,
    read_manifest,
    save_manifest,
    writing,
)
from distilkit.distillation.heldout import HeldoutEvaluator
from distilkit.distillation.teacher import open_teacher, teacher_name
from distilkit.encoders.forward import masked_lm_logits
from distilkit.errors import DistilkitError
from distilkit.files import replacing
from distilkit.options.distill import DistillOptions
from distilkit.progress import say, track
from distilkit.training.devices import DTYPES, device, is_main_process, keep_freed_memory, state

Row = dict[str, Any]
Array = npt.NDArray[Any]
PART = 1024  # blocks in a file: as many as an interruption can cost
OPEN_PARTS = 256  # that are mapped at a time


class TeacherCache:
    """Blocks of text, always masked alike, with the teacher's answers: the rows that batches are made of.

    The mask is a function of the cache's seed, the masking and the block's number, so it is the same in every epoch,
    batch, process and run. Of an answer, sampled tokens and the entropy are kept, as losses.kl_sampled takes them.
    `about` is what manifest.describe() says of the run.
    Raises DistilkitError where the directory holds something else.
    """

    def __init__(
        self, directory: Path, blocks: Sequence[Row], tokenizer: PreTrainedTokenizerBase, about: Mapping[str, Any]
    ) -> None:
        self.directory, self.blocks, self.tokenizer, self.masking = directory, blocks, tokenizer, 0
        self.manifest = claim_cache(directory, about)
        self.size, self.maskings = int(about["cache_size"]), int(about["cache_maskings"])
        self.probability = float(about["mask_probability"])
        self.most = math.ceil(self.probability * about["seq_length"])  # masked tokens of a block
        ids = np.min_scalar_type(about["vocabulary"] - 1)
        self.dtype = np.dtype([("ids", ids, (self.size,)), ("values", "f2", (1,))])
        self._part = lru_cache(OPEN_PARTS)(self._open)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, block: int) -> Row:
        """Return a block as the current masking has it: ids and labels (T,), teacher_ids and teacher_values (M, …)."""
        place = self.masking * len(self) + block
        row = self.mask(place)
        answers = self._part(place // PART)[place % PART, : int((row["labels"] != -100).sum())]
        return row | {
            "teacher_ids": torch.from_numpy(answers["ids"].astype(np.int64)),
            "teacher_values": torch.from_numpy(answers["values"].astype(np.float32)),
        }

    def mask(self, place: int) -> Row:
        """Mask a block; place 0 to N - 1 are the blocks' first masking, N to 2·N - 1 their second."""
        masking, block = divmod(place, len(self))
        ids = torch.from_numpy(np.asarray(self.blocks[block]["input_ids"]).astype(np.int64))
        fixed = make_generator(self.manifest["seed"], masking, block)
        corrupted, labels = mask_tokens(ids[None], self.tokenizer, self.probability, [fixed])
        return {"input_ids": corrupted[0], "labels": labels[0]}

    def collate(self, rows: list[Row], _generators: Any = None) -> dict[str, Tensor]:
        """Stack rows, padded to the longest with an attention_mask where they differ; answers one behind the other."""
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": -100}
        batch = {
            name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=padding)
            for name, padding in fill.items()
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        if (lengths != lengths[0]).any():
            batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        answers = [name for name in ("teacher_ids", "teacher_values") if name in rows[0]]
        return batch | {name: torch.cat([row[name] for row in rows]) for name in answers}

    def missing(self) -> list[int]:
        """Return the numbers of the parts that the teacher hasn't answered."""
        parts = math.ceil(self.maskings * len(self) / PART)
        return [part for part in range(parts) if not self._path(part).exists()]

    def fill(self, parts: list[int], teacher: PreTrainedModel, batch_size: int, precision: str = "fp32") -> None:
        """Ask the teacher for some parts; the main process notes how long it took."""
        keep_freed_memory()
        teacher.eval().to(device())
        total = sum(len(self._places(part)) for part in parts)
        with track("ask the teacher", total, unit="blocks") as advance, writing(self.directory):
            for part in parts:
                started, asked, places = time.monotonic(), 0.0, self._places(part)
                answers = np.zeros((len(places), self.most), self.dtype)
                for start in range(0, len(places), batch_size):
                    at = slice(start, start + batch_size)
                    asked += self._ask(teacher, places[at], answers[at], precision)
                    advance(len(places[at]))
                save_array(self._path(part), answers)
                if is_main_process():
                    self._took(len(places), time.monotonic() - started, asked)

    def _ask(self, teacher: PreTrainedModel, places: range, answers: Array, precision: str) -> float:
        """Write the answers to some rows into `answers` (n, M); returns the seconds that the teacher itself took."""
        inputs = send_to_device(self.collate([self.mask(place) for place in places]), device())
        masked = inputs.pop("labels") != -100  # (n, T)
        started = time.monotonic()
        autocast = torch.autocast(device().type, DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES)
        with torch.no_grad(), autocast:
            logits = masked_lm_logits(teacher, inputs, masked.flatten().nonzero().squeeze(-1))[1]
        if logits.is_cuda:
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
        fixed = make_generator(self.manifest["seed"], -1, places[0], device=logits.device)
        ids, values = sample_tokens(logits, self.size, self.manifest["temperature"], fixed)
        there = np.arange(self.most) < masked.sum(1).cpu().numpy()[:, None]  # (n, M)
        answers["ids"][there], answers["values"][there] = ids.cpu().numpy(), values.cpu().numpy()
        return seconds

    def _took(self, blocks: int, seconds: float, asked: float) -> None:
        for name, value in (("asked", blocks), ("fill_seconds", seconds), ("teacher_seconds", asked)):
            self.manifest[name] = self.manifest.get(name, 0) + value
        save_manifest(self.directory, self.manifest)

    def heldout(self, blocks: Sequence[Row]) -> Path:
        """Return the file for the teacher's first choices on those held-out blocks."""
        return self.directory / f"heldout-{fingerprint(blocks)[0][:16]}.npy"

    def metrics(self, rows_per_update: int) -> dict[str, float]:
        """Return what the cache costs and saves, and tell of it.

        The time saved is the teacher's own while it was filled; from `break_even_epoch` on, a run that had to fill it
        is ahead of one that asks the teacher at every update.
        """
        noted = read_manifest(self.directory)  # by the main process
        size = sum(path.stat().st_size for path in self.directory.glob("part-*.npy"))
        fill, asked, blocks = (float(noted.get(name, 0)) for name in ("fill_seconds", "teacher_seconds", "asked"))
        costs = {
            "cache/bytes_per_token": size / noted["tokens"],
            "cache/fill_seconds": fill,
            "cache/seconds_saved_per_update": asked / max(blocks, 1) * rows_per_update,
            "cache/break_even_epoch": self.maskings * fill / max(asked, 1e-9),
        }
        per_token, _, saved, epoch = costs.values()
        if is_main_process():
            say(
                f"the teacher cache takes {per_token:.1f} bytes a token, was filled in {fill:.0f} s and saves about "
                f"{saved:.3f} s an update: a gain from epoch {epoch:.2f} on, and at once in later runs"
            )
        return costs

    def _places(self, part: int) -> range:
        return range(part * PART, min((part + 1) * PART, self.maskings * len(self)))

    def _path(self, part: int) -> Path:
        return self.directory / f"part-{part:06d}.npy"

    def _open(self, part: int) -> Array:
        answers = load_array(self._path(part))
        if answers.dtype != self.dtype or answers.shape != (len(self._places(part)), self.most):
            raise DistilkitError(f"'{self._path(part)}' is damaged: delete it, and the teacher is asked again")
        return answers


class CachedBatches(Batches):
    """Batches of a cache's rows: every epoch has its own order, and the maskings take turns."""

    rows: TeacherCache

    def __init__(self, cache: TeacherCache, *, batch_size: int, seed: int) -> None:
        super().__init__(cache, cache.collate, batch_size=batch_size, seed=seed)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        self.rows.masking = number // self.per_epoch % self.rows.maskings
        return super().__getitem__(number)


def sample_tokens(logits: Tensor, size: int, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return what is kept of logits (M, V): ids drawn at the temperature (M, K), and the entropy in nats (M, 1)."""
    log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
    p = log_p.exp()
    ids = torch.multinomial(p, size, replacement=True, generator=generator)
    return ids.sort(dim=1).values, torch.special.entr(p).sum(1, keepdim=True).half()


def make_generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator that is a function of some numbers, in every process the same."""
    return torch.Generator(device).manual_seed(hash(numbers) % 2**63)


def save_array(path: Path, array: Array) -> None:
    """Write a .npy file atomically; several runs may fill the same cache."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def load_array(path: Path) -> Array:
    """Map a .npy file into memory.

    Raises DistilkitError where it is damaged.
    """
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):  # what NumPy says of a file that is cut short, or empty
        raise DistilkitError(f"'{path}' is damaged: delete it, and the teacher is asked again") from None
    return array


def fill_cache(
    config: DistillOptions,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: Batches,
    examiner: HeldoutEvaluator,
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
