"""A line that somebody types: edited where that can be done, and signals are heard while it is waited for.

Knows nothing of chats.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

try:
    import fcntl
    import readline  # noqa: F401 - with it ``input`` edits lines, and remembers those before
    import termios
    import tty
except ImportError:  # Windows, or a Python that was built without
    _EDITS = False
else:
    _EDITS = True

__all__ = ["read_line"]

_PROMPT = "> "


def read_line() -> str | None:
    """The next line without its end; None at the end of the input, and an empty one for Ctrl-C."""
    try:
        if not sys.stdin.isatty():
            return _plain_line()
        return _edited_line() if _EDITS and sys.stdout.isatty() else _typed_line()
    except EOFError:
        return None
    except KeyboardInterrupt:
        click.echo()
        return ""


def _plain_line() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def _typed_line() -> str | None:
    click.echo(_PROMPT, nl=False, err=not sys.stdout.isatty())  # a file is to have the answers alone
    _await_input()
    return _plain_line()


def _edited_line() -> str | None:
    if _is_at_end():
        return None
    with _key_by_key():
        click.echo(_PROMPT, nl=False)
        _await_input()
    click.echo("\r", nl=False)
    return input(_PROMPT)  # takes the key that has come, and shows the prompt anew


def _is_at_end() -> bool:
    """Whether Ctrl-D has been typed while an answer was shown: something to read, of no bytes.

    To be asked while the terminal still gives lines: key by key, it would be a NUL.
    """
    if not select.select([sys.stdin], [], [], 0)[0]:
        return False
    return not any(fcntl.ioctl(sys.stdin, termios.FIONREAD, bytes(4)))


@contextmanager
def _key_by_key() -> Iterator[None]:
    """The first key is something to read, not only the end of the line: from there on ``input`` has to edit."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSANOW)
        yield
    finally:
        with suppress(termios.error):  # a terminal that has been closed
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)  # and not TCSAFLUSH: the key is kept


def _await_input() -> None:
    """Wait until there is something to read: a signal that comes just before ``input`` reads would wait for it, too."""
    if os.name != "posix":
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell)
    try:
        select.select([sys.stdin, told], [], [])
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        os.close(tell)
