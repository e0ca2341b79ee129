"""Progress of long work on stderr: a bar with rate and time left on a terminal, quiet lines when piped."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

Advance = Callable[..., None]
LINES = 10  # how many lines a piped run prints
WIDE, BAR = 120, 20  # columns of a terminal that has room for a bar, and of the bar
_open: list[str] = []  # the work in progress, outermost first


def is_first_process() -> bool:
    """Say whether this is the process of several that talks."""
    return os.environ.get("RANK", "0") == "0"  # as torchrun and accelerate number them


@contextlib.contextmanager
def track(label: str, total: int | None, *, done: int = 0, unit: str = "it", quiet: bool = False) -> Iterator[Advance]:
    """Yield `advance(n=1, text="")`, which moves the bar by n units and shows a few words beside it.

    Without a total there is no time left to show. Work inside other work has a bar of its own on a terminal, and no
    lines when piped.
    """
    inner = bool(_open)
    _open.append(label)
    try:
        with _shown(label, total, done, unit, quiet=quiet or (inner and not sys.stderr.isatty())) as advance:
            yield advance
    finally:
        _open.pop()


@contextlib.contextmanager
def _shown(label: str, total: int | None, done: int, unit: str, *, quiet: bool) -> Iterator[Advance]:
    started = time.monotonic()
    if quiet or not is_first_process():
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
    if is_first_process():
        print(f"distilkit: warning: {text}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Tell of something that has come to pass; on a terminal it stands above the bar."""
    if is_first_process():
        print(text, file=sys.stderr, flush=True)


def aside(text: str) -> None:
    """Say it on a terminal only; where a run is piped, its quiet lines have to do."""
    if sys.stderr.isatty():
        say(text)


def _bar() -> Progress:
    """Make the bar: one line, whose last words are cut where the terminal is narrow, and which then has no bar."""
    console = Console(stderr=True)
    if console.width < WIDE:
        return Progress(_Words(console), console=console)
    return Progress(BarColumn(BAR), _Words(console, BAR + 1), console=console)


class _Words(ProgressColumn):
    """All that is said of a task, as far as there is room; what matters most comes first."""

    def __init__(self, console: Console, taken: int = 0) -> None:
        super().__init__()
        self.console, self.taken = console, taken

    def render(self, task: Task) -> Text:
        count = f" {task.completed:.0f}" if task.total is None else f" {task.completed:.0f}/{task.total:.0f}"
        rate = task.fields["rate"] if self.console.width >= WIDE or task.total is None else ""
        left = "-:--" if task.time_remaining is None else str(timedelta(seconds=int(task.time_remaining)))
        parts = [count, rate, "" if task.total is None else f"{left} left", task.fields["text"]]
        words = Text.assemble((task.description, "bold"), ", ".join(part for part in parts if part))
        words.truncate(self.console.width - self.taken, overflow="ellipsis")
        return words


def _liner(label: str, total: int | None, done: int, unit: str, started: float) -> Advance:
    count, shown = done, done * LINES // max(total or 1, 1)

    def advance(n: int = 1, text: str = "") -> None:
        nonlocal count, shown
        count += n
        reached = count.bit_length() if total is None else count * LINES // max(total, 1)  # each time it has doubled
        if reached > shown or count == total:
            shown = reached
            rate = (count - done) / (time.monotonic() - started + 1e-9)
            line = f"{label}: {count}{'' if total is None else f'/{total}'} {unit}, {rate:.3g} {unit}/s"
            if total is not None:
                line += f", {(total - count) / max(rate, 1e-9):.0f} s left"
            print(f"{line}, {text}" if text else line, file=sys.stderr, flush=True)

    return advance
