"""How the ranks of a job meet, and what one of them does when another is gone.

torchrun ends the others with SIGTERM when one has died, and kills them after 30 seconds. Who waits in a collective at
that moment may wait for ever, on a GPU or across a network that broke: a thread then ends the process in time.
"""

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import distributed
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from scout.checkpoint import numbered_checkpoints
from scout.errors import ScoutError, SharedError
from scout.ranks import RankLost, Ranks
from scout.signals import Signals

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that a collective may take after a signal to stop."""
LONG_PATIENCE = 25.0
"""The same where the first rank plays episodes meanwhile; torchrun kills after 30."""
TIMEOUT = timedelta(minutes=30)  # of a collective without any signal: longer than an evaluation takes
SPEAKING_SECONDS = 3.0  # that the first rank has to say what the others would say


class Waiting(NamedTuple):
    """A collective that this rank is in."""

    what: str
    since: float
    patience: float


class Link:
    """What the ranks tell each other beside their collectives, through the store that torchrun keeps."""

    def __init__(self, store: Any, rank: int) -> None:
        self._store, self._rank = store, rank
        self.collective: Waiting | None = None
        self.run_dir: Path | None = None
        self.when_stuck: Callable[[RankLost], None] | None = None
        """What is to be done before the process leaves a collective that does not end."""

    @contextmanager
    def waiting(self, what: str, patience: float | None) -> Iterator[None]:
        """Around a collective."""
        self.collective = Waiting(what, time.monotonic(), patience or PATIENCE)
        try:
            yield
        finally:
            self.collective = None

    def loss(self, what: str, reason: str) -> str:
        """The message of a collective that failed: whose fault it was, as far as that one has said, and what next."""
        cause = f"another rank is gone ({reason})"
        with contextlib.suppress(RuntimeError):
            if self._store.check(["failed"]):
                cause = self._store.get("failed").decode()
        advice = ""
        if self.run_dir is not None:
            checkpoints = numbered_checkpoints(self.run_dir)
            where = f"checkpoint {checkpoints[-1].name}" if checkpoints else "its last checkpoint, if it has one"
            advice = f"; resume={self.run_dir} goes on from {where}"
        return f"{cause}. So {what} cannot be shared any more{advice}"

    def fails(self, error: BaseException) -> None:
        """Tells the others why this rank is about to leave them."""
        reason = (str(error) or type(error).__name__).splitlines()[0]
        with contextlib.suppress(RuntimeError):
            self._store.set("failed", f"rank {self._rank} has failed: {reason}")

    def speaks(self) -> bool:
        """Whether this rank is to report that another is gone: the first does; where it is gone itself, one other."""
        with contextlib.suppress(RuntimeError):
            if self._rank == 0:
                self._store.set("said", "")
                return True
            deadline = time.monotonic() + SPEAKING_SECONDS
            while time.monotonic() < deadline:
                if self._store.check(["said"]) or self._store.check(["failed"]):  # by the first, or by who has failed
                    return False
                time.sleep(0.1)
            return self._store.add("speakers", 1) == 1
        return True  # torchrun's store is gone as well, so nobody knows who has spoken


@contextmanager
def joined[Job](ranks: Ranks, job: Job, uses_cuda: Callable[[Job], bool]) -> Iterator[tuple[Ranks, Job]]:
    """The ranks, met, and the first one's `job`, which all do. Raises ScoutError when they do not find each other."""
    if ranks.size == 1:
        yield ranks, job
        return
    try:
        whole, _, _ = next(rendezvous("env://"))
        store: Any = PrefixStore(f"scout/{ranks.restarts}", whole)
        if ranks.first:
            store.set("job", pickle.dumps(job))
        else:
            job = pickle.loads(store.get("job"))
        # Objects and what lies on the CPU go through gloo in any case.
        backend = "cpu:gloo,cuda:nccl" if uses_cuda(job) else "gloo"
        distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ScoutError(
            f"the {ranks.size} processes of this job have not met ({reason}): start all of them with torchrun"
        ) from error
    yield replace(ranks, link=Link(store, ranks.rank)), job
    distributed.destroy_process_group()  # after an error it might wait for those who are gone


@contextmanager
def reporting(ranks: Ranks) -> Iterator[None]:
    """Lets each error of a job be said once: by the rank that has it, and by the first one where all have it."""
    if ranks.link is None:
        yield
        return
    try:
        yield
    except SharedError:
        if ranks.first:
            raise
        raise SystemExit(1) from None
    except RankLost:
        if ranks.link.speaks():
            raise
        raise SystemExit(1) from None
    except ScoutError as error:
        ranks.link.fails(error)
        if ranks.first:
            raise ScoutError(f"rank 0: {error}") from error
        raise  # the others' log puts the rank in front of everything
    except Exception as error:
        ranks.link.fails(error)
        raise


class Watch:
    """Ends this process when, after a signal to stop, it waits longer for the others than one may.

    A context manager, around which `Signals` notes the signals. A handler in Python runs only when the main thread is
    back from what it waits in, so this thread has the signal's number from the interpreter itself.
    """

    def __init__(self, ranks: Ranks, signals: Signals) -> None:
        self._ranks, self._signals = ranks, signals
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if self._ranks.link is not None and threading.current_thread() is threading.main_thread():
            self._ours, theirs = socket.socketpair()
            self._theirs = theirs
            theirs.setblocking(False)
            self._before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._follow, name="watch", daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if hasattr(self, "_before"):
            signal.set_wakeup_fd(self._before)
            self._theirs.close()  # which ends the thread

    def _follow(self) -> None:
        with self._ours:
            while number := self._ours.recv(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
                    break
            else:
                return
        stopped = time.monotonic()
        while not self._over.wait(0.2):
            self._leave_if_stuck(stopped)

    def _leave_if_stuck(self, stopped: float) -> None:
        link = self._ranks.link
        assert link is not None
        waiting = link.collective
        if waiting is None and self._signals.stop is None:  # in one long call, such as for a GPU to finish
            waiting = Waiting("the GPU's work", stopped, PATIENCE)
        if waiting is None or time.monotonic() - max(stopped, waiting.since) < waiting.patience:
            return
        try:
            error = RankLost(link.loss(waiting.what, f"nothing came for {waiting.patience:g} seconds"))
            if link.speaks():
                log.error("%s", error)
            if link.when_stuck is not None:
                link.when_stuck(error)
        finally:
            logging.shutdown()
            os._exit(1)


def uses_cuda(device: str) -> bool:
    """Whether a run of `device.name` computes on a GPU here."""
    return device in ("auto", "cuda") and torch.cuda.is_available()
