"""Work on a Ray cluster: one actor per GPU, each with the model loaded once; needs the extra `ray`.

Work and frames travel through Ray, so that the machines need the package and the model, but neither the recording nor a
common disk. An actor that is lost is replaced wherever the cluster has room, and its work is done again. If the cluster or
this process ends, the job goes on with the next run, like any other.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Final

from evfi import __version__
from evfi.errors import ConfigError, EvfiError, ResourceError
from evfi.files import one_line
from evfi.pipeline.models import parse_devices
from evfi.pipeline.work import (
    IN_FLIGHT,
    MOST_STARTS,
    Failure,
    InterpolatorFactory,
    OnDeviceStep,
    Outcome,
    Work,
    perform,
    tried_again,
)
from evfi.pipeline.worker_process import device_label

_log = logging.getLogger(__name__)

_PATIENCE_S: Final = 60.0
"""After so long without any actor, the user is told what is waited for."""


@dataclass(frozen=True)
class RayCluster:
    """A cluster that this process is connected to.

    Attributes:
        num_actors: workers to start.
        device: what each works on: the GPU that Ray gives it, or the CPU.
    """

    num_actors: int
    device: str


def ray_cluster(workers: str, devices: str) -> RayCluster:
    """Connect to a cluster, or start one on this machine where none is running.

    Args:
        workers: "ray", or "ray://ADDRESS" for a cluster elsewhere.
        devices: "auto" (all GPUs of the cluster, or one CPU worker where it has none), "cuda", or "cpu,cpu" for so many CPU
            workers.

    Raises:
        ConfigError: Ray is not installed, or devices cannot be chosen so.
        ResourceError: there is no such cluster, or it has no GPU.
    """
    ray = _import_ray()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if not ray.is_initialized():
            options: dict[str, Any] = {"address": workers} if workers != "ray" else {}
            ray.init(logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        raise ResourceError(f"cannot connect to the Ray cluster '{workers}': {one_line(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's own would end this process without a word
    number = int(ray.cluster_resources().get("GPU", 0))
    if devices in ("auto", "cuda") and number:
        return RayCluster(number, "cuda:0")
    if devices == "cuda":
        raise ResourceError("the Ray cluster has no GPU; use --devices cpu or auto")
    chosen = ("cpu",) if devices == "auto" else parse_devices(devices)
    if set(chosen) != {"cpu"}:
        raise ConfigError(f"Ray gives each worker a GPU itself; use --devices auto, cuda, or cpu, got '{devices}'")
    return RayCluster(len(chosen), "cpu")


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
class _Slot:
    """One actor and what it holds."""

    actor: Any = None
    ready: Any = None
    label: str = ""
    in_flight: deque[tuple[Any, Work]] = field(default_factory=deque)
    fruitless: int = 0
    is_given_up: bool = False


class RayWorkers:
    """Actors of a Ray cluster; an `Executor`."""

    def __init__(self, factory: InterpolatorFactory, cluster: RayCluster, on_step: OnDeviceStep | None = None) -> None:
        """Start the actors.

        Args:
            factory: loads the model, in each actor.
            cluster: from `ray_cluster`.
            on_step: not called: steps within a piece of work stay where they are made.
        """
        self._ray = _import_ray()
        self._factory, self._cluster = factory, cluster
        resources: dict[str, Any] = {"num_gpus": 1} if cluster.device != "cpu" else {"num_cpus": 1}
        self._kind = self._ray.remote(max_restarts=0, max_task_retries=0, **resources)(_Actor)
        self._slots = [_Slot() for _ in range(cluster.num_actors)]
        self._todo: deque[Work] = deque()
        self._told: deque[Outcome] = deque()
        self._waiting_since = time.monotonic()
        for slot in self._slots:
            self._start(slot)

    @property
    def capacity(self) -> int:
        """How many pieces are worth holding."""
        return (IN_FLIGHT + 1) * max(1, sum(not slot.is_given_up for slot in self._slots))

    def submit(self, work: Work) -> None:
        """Take a piece of work."""
        self._todo.append(work)
        self._hand_out()

    def next_outcome(self, timeout: float) -> Outcome | None:
        """The next piece that is done or failed; None after `timeout` seconds without one.

        Raises:
            EvfiError: the model cannot be loaded, or no actor is left.
        """
        if self._told:
            return self._told.popleft()
        self._hand_out()
        watched = {slot.ready: slot for slot in self._slots if slot.ready is not None}
        watched.update({slot.in_flight[0][0]: slot for slot in self._slots if slot.in_flight})
        if all(slot.is_given_up for slot in self._slots):
            raise ResourceError("no worker of the Ray cluster is left; see above for what happened before")
        if not watched:
            return None
        done, _ = self._ray.wait(list(watched), timeout=timeout)
        for reference in done:
            self._look_at(watched[reference], reference)
        self._be_patient(is_served=bool(done) or any(slot.label for slot in self._slots))
        return self._told.popleft() if self._told else None

    def close(self) -> None:
        """End the actors; the connection to the cluster stays."""
        for slot in self._slots:
            if slot.actor is not None:
                self._ray.kill(slot.actor)
                slot.actor, slot.ready = None, None
                slot.in_flight.clear()

    def _start(self, slot: _Slot) -> None:
        slot.actor = self._kind.remote(self._factory, self._cluster.device, __version__)
        slot.ready, slot.label = slot.actor.label.remote(), ""

    def _hand_out(self) -> None:
        """Give work to actors that are ready: to those without any first."""
        for most in range(1, IN_FLIGHT + 1):
            for slot in self._slots:
                if self._todo and slot.label and len(slot.in_flight) < most:
                    work = self._todo.popleft()
                    slot.in_flight.append((slot.actor.perform.remote(work), work))

    def _look_at(self, slot: _Slot, reference: Any) -> None:
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._lost(slot, error)
            return
        if isinstance(result, EvfiError):
            raise result
        if reference is slot.ready or isinstance(result, str):
            slot.ready, slot.label = None, result
            return
        _, work = slot.in_flight.popleft()
        self._take(slot, work, result)

    def _take(self, slot: _Slot, work: Work, outcome: Outcome) -> None:
        if outcome.failure is None or outcome.failure.kind == "input":
            slot.fruitless = 0
            self._told.append(replace(outcome, work=work, device=slot.label))
            return
        self._retry(slot, work, outcome.failure)
        if outcome.failure.kind == "crash":  # a GPU that met an error may be of no use to this actor any more
            self._ray.kill(slot.actor)
            self._put_back(slot)
            self._start_again(slot)

    def _lost(self, slot: _Slot, error: BaseException) -> None:
        reason = one_line(error).split(". ")[0][:200]
        if slot.ready is not None:
            _log.warning("an actor of the Ray cluster could not start: %s", reason)
        elif slot.in_flight:
            _, work = slot.in_flight.popleft()
            self._retry(slot, work, Failure("crash", f"the actor was lost: {reason}"))
        self._put_back(slot)
        self._start_again(slot)

    def _start_again(self, slot: _Slot) -> None:
        slot.fruitless += 1
        if slot.fruitless < MOST_STARTS:
            self._start(slot)
            return
        slot.is_given_up, slot.actor, slot.ready, slot.label = True, None, None, ""
        _log.warning("an actor ended %d times without finishing anything; it is not started again", MOST_STARTS)

    def _put_back(self, slot: _Slot) -> None:
        """Work that waited at an actor goes back, to be done before all other."""
        self._todo.extendleft(work for _, work in reversed(slot.in_flight))
        slot.in_flight.clear()

    def _retry(self, slot: _Slot, work: Work, failure: Failure) -> None:
        following = tried_again(work, failure, slot.label)
        if isinstance(following, Work):
            self._todo.append(following)
        else:
            self._told.append(following)

    def _be_patient(self, *, is_served: bool) -> None:
        now = time.monotonic()
        if is_served:
            self._waiting_since = now
        elif now - self._waiting_since > _PATIENCE_S:
            self._waiting_since = now
            _log.warning("still waiting for the Ray cluster to start a worker on %s", self._cluster.device)


class _Actor:
    """What runs on a machine of the cluster."""

    def __init__(self, factory: InterpolatorFactory, device: str, version: str) -> None:
        self._device = device
        self._error: EvfiError | None = None
        try:
            if version != __version__:
                raise ConfigError(
                    f"the Ray cluster has evfi {__version__}, this machine has {version}; install one version everywhere"
                )
            self._interpolator = factory(device)
        except EvfiError as error:
            self._error = error

    def label(self) -> str | EvfiError:
        """Where this is, once the model is loaded; or why it cannot be."""
        import ray

        context = ray.get_runtime_context()
        place = (
            f"{ray.util.get_node_ip_address()} {','.join(map(str, ray.get_gpu_ids())) or context.get_actor_id()[:6]}"
        )
        return self._error or f"{place} {device_label(self._device)}"

    def perform(self, work: Work) -> Outcome:
        """Do a piece of work."""
        outcome = perform(self._interpolator, work)
        return replace(outcome, work=replace(work, window=None))  # type: ignore[arg-type]  # need not travel back
