"""A line a minute when piped, a bar on a terminal, never on stdout."""

import logging
import re
import sys

import pytest

from distilkit.progress import level, line_printer, say, track, warn


class Clock:
    """Seconds that pass only when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_piped_run_prints_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with the count, the rate and the time left; the last says that all is done."""
    clock = Clock()
    advance = line_printer("work", 40, 0, "rows", clock=clock)
    for number in range(40):
        clock.now += 10
        advance(1, f"loss {number}")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()

    assert captured.out == ""
    assert [line.split(" rows")[0] for line in lines] == [f"work: {n}/40" for n in (6, 12, 18, 24, 30, 36, 40)]
    assert lines[0] == "work: 6/40 rows, 0.1 rows/s, 340 s left, loss 5"
    assert lines[-1].endswith("0 s left, loss 39")


def test_short_work_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """When it is done; a resumed run counts what was done before."""
    with track("work", 40, done=20) as advance:
        advance(10)
        advance(10)

    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["40/40"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """As every process but the main one."""
    with track("work", 2, quiet=True) as advance:
        advance(2, "text")

    assert capsys.readouterr().err == ""


def test_work_inside_work_prints_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that scores its model now and then prints no lines about that."""
    with track("outer", 1) as advance:
        with track("inner", 1) as inner:
            inner()
        advance()
    with track("after", 1) as advance:
        advance()

    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["outer", "after"]


def test_without_a_total_no_time_left_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The count and the rate are."""
    clock = Clock()
    advance = line_printer("work", None, 0, "rows", clock=clock)
    for _ in range(9):
        clock.now += 30
        advance(1)
    lines = capsys.readouterr().err.splitlines()

    assert [line.split(",")[0] for line in lines] == ["work: 2 rows", "work: 4 rows", "work: 6 rows", "work: 8 rows"]
    assert not any("left" in line for line in lines)


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """Notes and progress are gone."""
    with level(quiet=True):
        with track("work", 1) as advance:
            advance()
        say("a note")
        warn("a problem")
    say("a later note")

    assert capsys.readouterr().err == "distilkit: warning: a problem\na later note\n"


def test_verbose_shows_what_libraries_report(capsys: pytest.CaptureFixture[str]) -> None:
    """As long as the command runs; then the libraries' own levels are back."""
    library = logging.getLogger("accelerate")
    before = library.level
    with level(verbose=True):
        library.info("loading a model")
    library.info("loading another")

    assert capsys.readouterr().err == "accelerate: loading a model\n"
    assert library.level == before


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_warnings_are_in_colour_on_a_terminal_alone() -> None:
    """And not with NO_COLOR."""
    program = "from distilkit.progress import warn; warn('a problem')"

    assert on_terminal(80, program).strip() == "distilkit: \x1b[33mwarning\x1b[0m: a problem"
    assert on_terminal(80, "import os; os.environ['NO_COLOR'] = '1'; " + program).strip() == (
        "distilkit: warning: a problem"
    )


PROGRAM = """
from distilkit.progress import aside, track
with track("distill", 90000, done=12000, unit="updates") as advance:
    for number in range(3):
        advance(1, "held-out loss 4.391, agreement 0.612, loss 12.3 ce 0.812 mlm 4.9 cos 0.213, 1277 tok/s")
        aside(f"update {number}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_live_line_is_one_line(width: int) -> None:
    """Whatever the terminal's width: cut at the end, never moved up to be drawn again; notes stand above it."""
    text = on_terminal(width, PROGRAM)
    lines = [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)) if line.strip()]

    assert not re.search(r"\x1b\[\d*A", text)  # cursor up
    assert max(map(len, lines)) <= width
    assert {"update 0", "update 1", "update 2"} <= set(lines)
    assert "12003/90000" in lines[-1]
    assert ("held-out loss 4.391" in lines[-1]) == (width >= 80)
    assert ("1277 tok/s" in lines[-1]) == (width >= 160)


def on_terminal(width: int, program: str) -> str:
    """Run a program on a pseudo-terminal of so many columns; returns what it wrote there."""
    import fcntl
    import os
    import pty
    import struct
    import subprocess
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"}
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return written.decode()


def test_a_log_on_a_full_disk_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes and warnings that cannot be printed are dropped."""

    class Full:
        def write(self, _text: str) -> None:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stderr", Full())
    warn("a")
    say("b")
    with track("work", 1) as advance:
        advance()
