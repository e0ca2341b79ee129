"""Progress of long work on stderr: a bar with rate and time left on a terminal, a line a minute when piped."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from distilkit.formatting import printable, shorten

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[..., None]
LINE_SECONDS = 60.0  # between two lines of a piped run
WIDE, BAR = 120, 20  # columns of a terminal that has room for a bar, and of the bar
COLORS = {"error": "31", "gate not met": "31", "warning": "33", "interrupted": "33"}
_open: list[str] = []  # the work in progress, outermost first
LIBRARIES = ("transformers", "datasets", "accelerate", "huggingface_hub")  # that report what they load
_level = {"quiet": False}
_said: set[str] = set()  # by say_once(), in this command


@contextlib.contextmanager
def level(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Context manager: quiet leaves warnings and errors alone, verbose adds what libraries report.

    Enter it after the libraries are imported, because importing them sets their own levels.
    """
    before, _level["quiet"] = _level["quiet"], quiet
    _said.clear()
    try:
        with _library_reports() if verbose else contextlib.nullcontext():
            yield
    finally:
        _level["quiet"] = before


@contextlib.contextmanager
def _library_reports() -> Iterator[None]:
    """Show what libraries log, on stderr, and restore their levels afterwards."""
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    silent = [logger for logger in loggers if not logger.handlers]  # the others print themselves
    levels = [logger.level for logger in loggers]
    for logger in silent:
        logger.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in silent:
            logger.removeHandler(handler)
        for logger, number in zip(loggers, levels, strict=True):
            logger.setLevel(number)


def is_first_process() -> bool:
    """Say whether this is the process, of several, that reports."""
    return os.environ.get("RANK", "0") == "0"  # as torchrun and accelerate number them


@contextlib.contextmanager
def track(label: str, total: int | None, *, done: int = 0, unit: str = "it", quiet: bool = False) -> Iterator[Advance]:
    """Yield `advance(n=1, text="")`, which moves the bar by n units and shows a few words beside it.

    Without a total, no time left is shown. Nested work has a bar of its own on a terminal, and no lines when piped.
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
    if quiet or _level["quiet"] or not is_first_process():
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
        yield line_printer(label, total, done, unit)


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Context manager: on a terminal, show a spinner with what is being waited for."""
    if _level["quiet"] or not is_first_process() or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{text} …"):
        yield


def warn(text: str) -> None:
    """Report a problem that does not stop the work."""
    complain("warning", text)


def complain(kind: str, text: str) -> None:
    """Print one line about an error or a warning, its kind in colour on a terminal (not with NO_COLOR)."""
    if is_first_process():
        colored = kind in COLORS and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        shown = f"\x1b[{COLORS[kind]}m{kind}\x1b[0m" if colored else kind
        _print(f"distilkit: {shown}: {shorten(printable(text))}")


def _print(text: str) -> None:
    """Print on stderr. A log on a full disk, or a terminal that is gone, does not stop the work."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a note; on a terminal it stands above the bar."""
    if is_first_process() and not _level["quiet"]:
        _print(printable(text, newlines=True))


def say_once(text: str) -> None:
    """Print a note that a command would otherwise repeat, for example for each seed."""
    if text not in _said:
        _said.add(text)
        say(text)


def aside(text: str) -> None:
    """Print a note on a terminal only."""
    if sys.stderr.isatty():
        say(text)


def _bar() -> "Progress":
    """Return the progress bar, which takes one line. On a narrow terminal it shows text only, cut at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    console = Console(stderr=True)
    wide = console.width >= WIDE

    class Words(ProgressColumn):
        """What is known about a task, the most important first, as far as there is room."""

        def render(self, task: Task) -> Text:
            text = Text.assemble((task.description, "bold"), describe(task, with_rate=wide))
            text.truncate(console.width - (BAR + 1 if wide else 0), overflow="ellipsis")
            return text

    return Progress(*([BarColumn(BAR)] if wide else []), Words(), console=console)


def describe(task: Any, *, with_rate: bool) -> str:
    """Spell count, rate, time left and the words that came with the last advance."""
    from datetime import timedelta

    count = f" {task.completed:.0f}" if task.total is None else f" {task.completed:.0f}/{task.total:.0f}"
    rate = task.fields["rate"] if with_rate or task.total is None else ""
    left = "-:--" if task.time_remaining is None else str(timedelta(seconds=int(task.time_remaining)))
    parts = [count, "" if task.total is None else f"{left} left", task.fields["text"], rate]
    return ", ".join(part for part in parts if part)


def line_printer(
    label: str, total: int | None, done: int, unit: str, *, clock: Callable[[], float] = time.monotonic
) -> Advance:
    """Return an `advance` that prints a line a minute at most, and one at the end."""
    started, count = clock(), done
    shown = started

    def advance(n: int = 1, text: str = "") -> None:
        nonlocal count, shown
        count += n
        now = clock()
        if now - shown < LINE_SECONDS and count != total:
            return
        shown = now
        rate = (count - done) / (now - started + 1e-9)
        line = f"{label}: {count}{'' if total is None else f'/{total}'} {unit}, {rate:.3g} {unit}/s"
        if total is not None:
            line += f", {(total - count) / max(rate, 1e-9):.0f} s left"
        _print(f"{line}, {text}" if text else line)

    return advance
