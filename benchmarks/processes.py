"""CPU and memory of process trees, from the operating system."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import psutil

ATTEMPTS_MAX = 50
SAMPLE_SECONDS = 0.01
STILL_SECONDS = 0.3
START_SECONDS_MAX = 60.0


class UnreadableProcesses(Exception):
    """A process tree changed whenever it was read, or cannot be seen from here."""


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and all its descendants, live or ended.

    What ended and was waited for is in its parent's children times, so nothing is lost as long as
    no process ends while the tree is read: then it is read again.

    Raises:  UnreadableProcesses.
    """
    for _ in range(ATTEMPTS_MAX):
        try:
            before = _tree(root)
            seconds = sum(sum(one.cpu_times()[:4]) for one in before)
            if before == _tree(root):
                return seconds
        except psutil.NoSuchProcess:
            if not psutil.pid_exists(root):
                raise UnreadableProcesses(f"Process {root} has ended.") from None
    raise UnreadableProcesses(f"The children of process {root} come and go without a pause.")


def children_of(root: int) -> list[int]:
    """Return the direct children of a process."""
    return [one.pid for one in psutil.Process(root).children()]


def busy_seconds() -> float:
    """Return the CPU time that all processes of the machine have had since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def wait_until_still(roots: Sequence[int]) -> None:
    """Return when process trees do nothing any more: what they do when they start is over.

    Raises:  UnreadableProcesses when they never come to rest.
    """
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        before = [cpu_seconds(root) for root in roots]
        time.sleep(STILL_SECONDS)
        # Every worker looks around once a second, which takes less than two ticks of 10 ms.
        after = [cpu_seconds(root) for root in roots]
        if all(later - earlier < 0.02 for earlier, later in zip(before, after, strict=True)):
            return
    raise UnreadableProcesses(f"The servers are still at work after {START_SECONDS_MAX:.0f} s.")


class PeakMemory:
    """How much the resident memory of some processes grew at most while the block ran.

    Looked at every 10 ms; pages that a process shares with its parent do not grow, so this is
    memory of its own. ``growth_bytes`` is that of the process that grew most.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before = [one.memory_info().rss for one in self._processes]
        self._peaks = list(self._before)
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    @property
    def growth_bytes(self) -> int:
        """The largest growth of one process."""
        return max(peak - before for peak, before in zip(self._peaks, self._before, strict=True))

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            for place, one in enumerate(self._processes):
                try:
                    self._peaks[place] = max(self._peaks[place], one.memory_info().rss)
                except psutil.NoSuchProcess:
                    return


def _tree(root: int) -> list[psutil.Process]:
    process = psutil.Process(root)
    return [process, *process.children(recursive=True)]


def wait_for(is_so: Callable[[], bool], what: str, seconds_max: float) -> None:
    """Ask again and again.

    Raises:  TimeoutError, naming what was waited for.
    """
    deadline = time.monotonic() + seconds_max
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds_max:.0f} s")
        time.sleep(0.01)
