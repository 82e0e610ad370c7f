"""How a scheduler reaches its workers: what every transport can do, and what it reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from evfi.workers.tasks import Performed, Task


@dataclass(frozen=True)
class Ready:
    """A worker has loaded what it needs.

    Attributes:
        label: its device, for people.
    """

    label: str


@dataclass(frozen=True)
class Lost:
    """A worker has ended by itself.

    Attributes:
        reason: after "the worker …", e.g. "was killed by SIGKILL".
        is_failure: whether something went wrong, even if it held no task.
    """

    reason: str
    is_failure: bool = True


@dataclass(frozen=True)
class Unusable:
    """No worker can do anything, e.g. because the model cannot be loaded.

    Attributes:
        error: to be raised.
    """

    error: BaseException


Event: TypeAlias = Ready | Performed | Lost | Unusable
"""A `Performed` is of the oldest task that the worker holds. After one that failed with a "crash", and after `Lost`, the worker
is gone and nothing more is reported of it."""


class Transport(Protocol):
    """Starts workers, sends them tasks and reports what happens to them."""

    @property
    def devices(self) -> Sequence[str]:
        """The device of each worker, by the worker's number."""

    @property
    def tasks_at_once(self) -> int:
        """How many tasks a worker holds: the one that it performs, and those that wait there so that it never does."""

    @property
    def is_replaceable(self) -> bool:
        """Whether another attempt may fare better: workers can be started anew, or there are others."""

    def start(self, number: int) -> None:
        """Start worker `number`, again where it is gone; returns at once."""

    def send(self, number: int, task: Task) -> None:
        """Send a task to a worker that is ready; returns at once."""

    def next_event(self, timeout: float) -> tuple[int, Event] | None:
        """What happened next and to which worker; None after `timeout` seconds in which nothing did."""

    def close(self) -> None:
        """End all workers and drop what is not done; none is left when this returns."""
