"""Slow-motion video from key frames and events, by event-controlled video diffusion.

Public names are imported when they are first used, so that `import evfi` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evfi.errors import (
        ConfigError,
        EvfiError,
        InputError,
        JobCancelledError,
        ModelError,
        OutputError,
        RecordingError,
        ResourceError,
    )
    from evfi.events.formats import open_event_file
    from evfi.events.stream import EventStream
    from evfi.interpolator import Interpolator
    from evfi.models.registry import load_model
    from evfi.pipeline.session import interpolate
    from evfi.pipeline.watching import cancel_job, job_status
    from evfi.recordings.inspection import inspect_recording
    from evfi.recordings.opening import open_recording
    from evfi.recordings.recording import Recording

__version__ = "0.1.0.dev0"

__all__ = [
    "ConfigError",
    "EventStream",
    "EvfiError",
    "InputError",
    "Interpolator",
    "JobCancelledError",
    "ModelError",
    "OutputError",
    "Recording",
    "RecordingError",
    "ResourceError",
    "__version__",
    "cancel_job",
    "inspect_recording",
    "interpolate",
    "job_status",
    "load_model",
    "open_event_file",
    "open_recording",
]

_HOMES = {
    "ConfigError": "evfi.errors",
    "EventStream": "evfi.events.stream",
    "EvfiError": "evfi.errors",
    "InputError": "evfi.errors",
    "Interpolator": "evfi.interpolator",
    "JobCancelledError": "evfi.errors",
    "ModelError": "evfi.errors",
    "OutputError": "evfi.errors",
    "Recording": "evfi.recordings.recording",
    "RecordingError": "evfi.errors",
    "ResourceError": "evfi.errors",
    "cancel_job": "evfi.pipeline.watching",
    "inspect_recording": "evfi.recordings.inspection",
    "interpolate": "evfi.pipeline.session",
    "job_status": "evfi.pipeline.watching",
    "load_model": "evfi.models.registry",
    "open_event_file": "evfi.events.formats",
    "open_recording": "evfi.recordings.opening",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'evfi' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
