"""Workers on a Ray cluster: one actor per GPU, each loaded once; needs the extra `ray`.

Tasks and results travel through Ray. An actor that is lost is replaced wherever the cluster has room. If the cluster or this
process ends, the work goes on with the next run, like any other.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from evfi import __version__
from evfi.errors import ConfigError, EvfiError, ResourceError
from evfi.files import one_line
from evfi.workers.devices import device_label, parse_devices
from evfi.workers.tasks import Performed, Task, WorkerFactory, perform_safely
from evfi.workers.transport import Event, Lost, Ready, Unusable

_log = logging.getLogger(__name__)

_PATIENCE_S: Final = 60.0
"""After this long without any actor, a warning says what is waited for."""

_LONGEST_REASON: Final = 200


def cluster_devices(address: str, devices: str) -> tuple[str, ...]:
    """Connect to a cluster, or start one on this machine where none is running.

    Args:
        address: "ray", or "ray://ADDRESS" for a cluster elsewhere.
        devices: "auto" (all GPUs of the cluster, or one CPU worker where it has none), "cuda", or "cpu,cpu" for so many CPU
            workers.

    Returns:
        The device of each worker, as it sees it: the GPU that Ray gives it is "cuda:0".

    Raises:
        ConfigError: Ray is not installed, or devices cannot be chosen so.
        ResourceError: there is no such cluster, or it has no GPU.
    """
    ray = _import_ray()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if not ray.is_initialized():
            options: dict[str, Any] = {"address": address} if address != "ray" else {}
            ray.init(logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        raise ResourceError(f"cannot connect to the Ray cluster '{address}': {one_line(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's own would end this process without a word
    number = int(ray.cluster_resources().get("GPU", 0))
    if devices in ("auto", "cuda") and number:
        return ("cuda:0",) * number
    if devices == "cuda":
        raise ResourceError("the Ray cluster has no GPU; use --devices cpu or auto")
    chosen = ("cpu",) if devices == "auto" else parse_devices(devices)
    if set(chosen) != {"cpu"}:
        raise ConfigError(f"Ray assigns a GPU to each worker; use --devices auto, cuda, or cpu, got '{devices}'")
    return chosen


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"workers on Ray need the package ray ({one_line(error)}); install it with pip install 'evfi[ray]'"
        ) from error
    return ray


@dataclass(eq=False)
class _Handle:
    """One actor and the answers that are expected of it.

    Attributes:
        actor: Ray's.
        ready: the answer that it is loaded, until it came.
        answers: to tasks, oldest first.
    """

    actor: Any
    ready: Any
    answers: deque[Any] = field(default_factory=deque)


class RayActors:
    """A `Transport` to actors of a Ray cluster; steps within a task stay where they are made."""

    tasks_at_once = 2
    is_replaceable = True

    def __init__(self, factory: WorkerFactory, devices: tuple[str, ...]) -> None:
        """Take the devices.

        Args:
            factory: loads the worker, in each actor.
            devices: from `cluster_devices`.
        """
        self._ray = _import_ray()
        self.devices, self._factory = devices, factory
        resources: dict[str, Any] = {"num_gpus": 1} if devices[0] != "cpu" else {"num_cpus": 1}
        self._kind = self._ray.remote(max_restarts=0, max_task_retries=0, **resources)(_Actor)
        self._handles: dict[int, _Handle] = {}
        self._waiting_since = time.monotonic()

    def start(self, number: int) -> None:
        """Start an actor, as soon as the cluster has room."""
        actor = self._kind.remote(self._factory, self.devices[number], __version__)
        self._handles[number] = _Handle(actor, actor.label.remote())

    def send(self, number: int, task: Task) -> None:
        """Send a task."""
        handle = self._handles[number]
        handle.answers.append(handle.actor.perform.remote(task.item))

    def next_event(self, timeout: float) -> tuple[int, Event] | None:
        """What happened next."""
        expected = {
            reference: number
            for number, handle in self._handles.items()
            for reference in (handle.ready or (handle.answers[0] if handle.answers else None),)
            if reference is not None
        }
        if not expected:
            return None
        done, _ = self._ray.wait(list(expected), num_returns=1, timeout=timeout)
        self._be_patient(is_served=bool(done) or any(handle.ready is None for handle in self._handles.values()))
        if not done:
            return None
        number = expected[done[0]]
        return number, self._event(number, done[0])

    def close(self) -> None:
        """End the actors; the connection to the cluster stays."""
        for handle in self._handles.values():
            self._ray.kill(handle.actor)
        self._handles.clear()

    def _event(self, number: int, reference: Any) -> Event:
        handle = self._handles[number]
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            del self._handles[number]
            reason = one_line(error).split(". ")[0][:_LONGEST_REASON]
            return Lost(f"of the Ray cluster could not start: {reason}" if handle.ready else f"was lost: {reason}")
        if isinstance(answer, EvfiError):
            return Unusable(answer)
        if handle.ready is not None:
            handle.ready = None
            return Ready(answer)
        handle.answers.popleft()
        assert isinstance(answer, Performed)
        if answer.failure is not None and answer.failure.kind == "crash":
            self._ray.kill(handle.actor)
            del self._handles[number]
        return answer

    def _be_patient(self, *, is_served: bool) -> None:
        now = time.monotonic()
        if is_served:
            self._waiting_since = now
        elif now - self._waiting_since > _PATIENCE_S:
            self._waiting_since = now
            _log.warning("still waiting for the Ray cluster to start a worker on %s", self.devices[0])


class _Actor:
    """What runs on a machine of the cluster."""

    def __init__(self, factory: WorkerFactory, device: str, version: str) -> None:
        self._device = device
        self._error: EvfiError | None = None
        try:
            if version != __version__:
                raise ConfigError(
                    f"the Ray cluster has evfi {__version__}, this machine has {version}; install one version everywhere"
                )
            self._worker = factory(device)
        except EvfiError as error:
            self._error = error

    def label(self) -> str | EvfiError:
        """Where this is, once the worker is loaded; or why it cannot be."""
        import ray

        context = ray.get_runtime_context()
        place = (
            f"{ray.util.get_node_ip_address()} {','.join(map(str, ray.get_gpu_ids())) or context.get_actor_id()[:6]}"
        )
        return self._error or f"{place} {device_label(self._device)}"

    def perform(self, item: Any) -> Performed:
        """Perform a task."""
        return perform_safely(self._worker, item)
