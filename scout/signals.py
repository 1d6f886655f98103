"""What a running training does when it is told to stop: Ctrl-C, a scheduler's SIGTERM, and its warnings."""

import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

log = logging.getLogger(__name__)

sweeps_here = False
"""Whether this is the process of a sweep, which a job in it ends when it is told to stop."""
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(BaseException):
    """A signal ended the run, between two updates and with a checkpoint.

    No Exception, so that nothing catches it on its way out.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Signals:
    """A context manager that notes signals, for the loop to act on between two updates.

    SIGINT, SIGTERM and SIGUSR2 set `stop`, SIGUSR1 sets `checkpoint`. A second SIGINT leaves at once, with exit code
    130. Where Python allows no handlers, in threads other than the main one, nothing is noted.

    submitit has handlers of its own in the jobs that it starts. It announces a preemption by SIGUSR2: once the run has
    stopped that is handed on to its handler, which asks for the job to be started again. SIGTERM, which may come before
    that and which it passes over, is then a reason for a checkpoint alone.

    Among `several` ranks an error leaves SIGTERM ignored: torchrun sends it to all as soon as one has ended, and then
    no other could say why.
    """

    def __init__(self, several: bool = False) -> None:
        self._several = several
        self.stop: int | None = None
        self.checkpoint = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        for number, handler in self._before.items():
            failed = self._several and kind is not None and number == signal.SIGTERM
            signal.signal(number, signal.SIG_IGN if failed else handler)
        if self.stop == signal.SIGUSR2 and callable(self._before.get(self.stop)):
            self._before[self.stop](self.stop, None)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGUSR1 or (number == signal.SIGTERM and callable(self._before[number])):
            self.checkpoint = True
        elif number == signal.SIGINT and self.stop is not None:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the cursor, which the live display hides
                sys.stderr.flush()
            os._exit(128 + number)
        else:
            before, self.stop = self.stop, number
            if before is not None and self._several:  # torchrun's, when another has ended for the same reason
                return
            log.info("%s: ends after the update under way, with a checkpoint", signal.Signals(number).name)
