"""pufferlib.pufferl, without what importing and running it does to the whole process.

The import makes SIGINT exit at once with code 0, every RuntimeWarning an error, and rich print all tracebacks: all
three are taken back here. Import `pufferl` from this module, nowhere else.
"""

import collections
import logging
import signal
import sys
import threading
import warnings

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no CUDA compiler
_sigint, _excepthook = signal.getsignal(signal.SIGINT), sys.excepthook
with warnings.catch_warnings():
    from pufferlib import pufferl
sys.excepthook = _excepthook
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, _sigint)


class _NoUtilization:
    """Stands for PuffeRL's Utilization: a thread that outlives every exception, so that the process never ends."""

    def __init__(self) -> None:
        self.cpu_mem = self.cpu_util = self.gpu_util = self.gpu_mem = collections.deque([0])

    def stop(self) -> None:
        pass


pufferl.Utilization = _NoUtilization  # pyright: ignore[reportAttributeAccessIssue]
