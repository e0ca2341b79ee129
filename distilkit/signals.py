"""The signals that ask a command to stop."""

import os
import signal
import sys
from typing import Any

INTERRUPTED = 130  # the exit code


def stopping_signals() -> list[signal.Signals]:
    """Return SIGTERM, and SIGHUP unless nohup made the process ignore it. Windows has no SIGHUP."""
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hang_up]


def exit_on_interrupt() -> None:
    """Until a command starts, while its libraries are loaded, let Ctrl-C end the process in one line."""

    def leave(_number: int, _frame: Any) -> None:
        os.write(2, b"distilkit: interrupted\n")
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)


def close_stdout() -> str:
    """Flush standard output; return why that failed, or "". The interpreter then does not try again at its end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.strerror or str(error)
    return ""
