"""Progress of long work on stderr: a bar with rate and time left on a terminal, quiet lines when piped."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]
LINES = 10  # how many lines a piped run prints


@contextlib.contextmanager
def track(label: str, total: int, *, done: int = 0, unit: str = "it", quiet: bool = False) -> Iterator[Advance]:
    """Yield `advance(n=1, text="")`, which moves the bar by n units and shows a few words beside it."""
    started = time.monotonic()
    if quiet:
        yield lambda *_args, **_words: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(label, total=total, completed=done, text="", rate="")

            def advance(n: int = 1, text: str = "") -> None:
                words: dict[str, Any] = {"text": text} if text else {}
                bar.update(task, advance=n, **words)
                moved = bar.tasks[task].completed - done
                bar.update(task, rate=f"{moved / (time.monotonic() - started + 1e-9):.3g} {unit}/s")

            yield advance
    else:
        yield _liner(label, total, done, unit, started)


def warn(text: str) -> None:
    """Tell of something that is not as it should be, but does not stop the work."""
    print(f"distilkit: warning: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Tell of something worth knowing about the work that goes on."""
    print(f"distilkit: {text}", file=sys.stderr, flush=True)


def _bar() -> Progress:
    columns = ("[bold]{task.description}", "{task.fields[rate]}", "{task.fields[text]}")
    label, rate, text = (TextColumn(column) for column in columns)
    return Progress(
        label, BarColumn(), MofNCompleteColumn(), rate, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        text, console=Console(stderr=True),
    )  # fmt: skip


def _liner(label: str, total: int, done: int, unit: str, started: float) -> Advance:
    count, shown = done, done * LINES // max(total, 1)

    def advance(n: int = 1, text: str = "") -> None:
        nonlocal count, shown
        count += n
        if count * LINES // max(total, 1) > shown or count == total:
            shown = count * LINES // max(total, 1)
            rate = (count - done) / (time.monotonic() - started + 1e-9)
            left = (total - count) / max(rate, 1e-9)
            line = f"{label}: {count}/{total} {unit}, {rate:.3g} {unit}/s, {left:.0f} s left"
            print(f"{line}, {text}" if text else line, file=sys.stderr, flush=True)

    return advance
