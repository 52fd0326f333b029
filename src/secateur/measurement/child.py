"""A worker process, seen from outside: started afresh, asked, and gone when no longer needed.

It is no `multiprocessing.Process`: that one runs the user's script again, which need not be made for it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from secateur.measurement.worker import Job

STALLED = 900.0  # seconds without an answer


class DeadError(Exception):
    """The process has ended, or does not answer."""


class Child:
    """A running worker."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._to: IO[bytes] = process.stdin
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()

    def ask(self, *what: Any) -> Any:
        """Send a question and return its answer.

        Raises:
            DeadError: there is none; says why.
        """
        try:
            pickle.dump(what, self._to)
            self._to.flush()
            answer = self._answers.get(timeout=STALLED)
        except OSError:
            answer = None
        except queue.Empty:
            raise DeadError(f"no answer for {STALLED:.0f} seconds") from None
        if answer is None:
            raise DeadError(self._end())
        return answer

    def _end(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the process answers no more"
        if code in (-signal.SIGABRT, -getattr(signal, "SIGKILL", signal.SIGABRT)):  # by its allocator, or by the system
            return "the process was killed, most likely for memory"
        return f"the process ended with code {code}"


def _listen(stream: IO[bytes], answers: queue.SimpleQueue[Any]) -> None:
    with suppress(Exception):  # whatever ends the stream, nothing more will come
        while True:
            answers.put(pickle.load(stream))  # noqa: S301 - from the process that this one started
    answers.put(None)


@contextmanager
def running_child(job: Job) -> Iterator[Child]:
    """Start a worker for a job, and end it with the body; what it leaves in temporary files goes with it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}  # noqa: PTH109
    if job.options.threads:
        environment["OMP_NUM_THREADS"] = str(job.options.threads)
    with tempfile.TemporaryDirectory(prefix="secateur-", ignore_cleanup_errors=True) as folder:
        environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; sys.path[:] = filter(None, sys.path); import secateur.measurement.worker as w; w.main()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            child = Child(process)
            with suppress(DeadError):  # the first question tells
                child.ask(job)
            yield child
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]
