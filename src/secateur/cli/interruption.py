"""A signal to stop, remembered: foreign code that looks attributes up and forgets errors may swallow the exception."""

from __future__ import annotations

import signal
import threading
from typing import Any, NoReturn

_ASKED = threading.Event()


def listen() -> None:
    """Stop at the signals that ask for it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if a signal has come; to be called between steps."""
    if _ASKED.is_set():
        raise KeyboardInterrupt


def _interrupt(*_: Any) -> NoReturn:
    _ASKED.set()
    raise KeyboardInterrupt
