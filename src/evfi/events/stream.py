"""The event stream: what every reader makes and everything downstream consumes.

Conventions: `x` runs right and `y` down from the sensor's top left pixel; times are whole microseconds; polarity is +1
(brighter) or -1 (darker); events are ordered by time, and events of equal time keep the order in which they came.
Nothing is repaired in silence: `from_arrays` raises, or drops and counts where it was told to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evfi.errors import InputError
from evfi.limits import check_pixels

OnOutside = Literal["raise", "drop"]
PolarityConvention = Literal["signed", "binary"]

MAX_SIDE = 2**16  # of a sensor; the coordinates of all formats fit
MAX_ABS_TIME_US = 2**61  # mirrored times stay inside int64
_COLUMN_DTYPES = {"x": np.int32, "y": np.int32, "t": np.int64, "p": np.int8}


@dataclass(frozen=True, eq=False)
class EventStream:
    """Events of one sensor in time order.

    Make one with `from_arrays`, which checks its input; the plain constructor trusts the caller.

    Attributes:
        x: column of each event, int32 [N], 0 <= x < width.
        y: row of each event, int32 [N], 0 <= y < height.
        t: time in microseconds, int64 [N], not decreasing.
        p: polarity, int8 [N], +1 or -1.
        sensor_size: (width, height) in pixels.
        num_dropped: how many events outside the sensor were left out when this stream was made.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    t: NDArray[np.int64]
    p: NDArray[np.int8]
    sensor_size: tuple[int, int]
    num_dropped: int = 0

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        t: ArrayLike,
        p: ArrayLike,
        sensor_size: tuple[int, int],
        *,
        polarity: PolarityConvention = "signed",
        on_outside: OnOutside = "raise",
    ) -> EventStream:
        """Check, convert and sort four columns into a stream; arrays of the right type are not copied.

        Args:
            x: columns in whole pixels [N].
            y: rows in whole pixels [N].
            t: times in microseconds [N]; floating point times are rounded to the nearest microsecond.
            p: polarities [N] in the convention that `polarity` names.
            sensor_size: (width, height).
            polarity: "signed" for -1/+1; "binary" for 0/1 or booleans.
            on_outside: what to do with events outside the sensor: "raise", or "drop" and count in `num_dropped`.

        Raises:
            InputError: lengths differ, a value is not finite or not whole, a polarity is outside the convention, the
                sensor size is not two positive integers, or (with "raise") a coordinate is outside the sensor.
        """
        width, height = check_sensor_size(sensor_size)
        columns = _as_columns(x=x, y=y, t=t, p=p)
        times = _whole_times(columns["t"])
        signs = _signed_polarity(columns["p"], polarity)
        xs, ys = _whole_pixels(columns["x"], "x"), _whole_pixels(columns["y"], "y")

        inside = (xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)
        num_outside = len(xs) - int(np.count_nonzero(inside))
        if num_outside:
            if on_outside == "raise":
                first = int(np.argmin(inside))
                raise InputError(
                    f"{num_outside} of {len(xs)} events lie outside the {width}×{height} sensor (the first at "
                    f"x={xs[first]}, y={ys[first]}); give the right sensor size or drop them with on_outside='drop'"
                )
            xs, ys, times, signs = xs[inside], ys[inside], times[inside], signs[inside]
        stream = cls(
            xs.astype(np.int32, copy=False), ys.astype(np.int32, copy=False), times, signs, (width, height), num_outside
        )
        return stream._sorted()

    @classmethod
    def empty(cls, sensor_size: tuple[int, int]) -> EventStream:
        """A stream of this sensor without events."""
        return cls.from_arrays([], [], [], [], sensor_size)

    @staticmethod
    def concatenate(streams: Iterable[EventStream]) -> EventStream:
        """Join streams of one sensor; the result is in time order, ties in the order given.

        Raises:
            InputError: no stream was given, or their sensor sizes differ.
        """
        parts = list(streams)
        if not parts:
            raise InputError("expected at least one event stream to concatenate, got none")
        sizes = {part.sensor_size for part in parts}
        if len(sizes) > 1:
            raise InputError(f"event streams of different sensor sizes cannot be concatenated: {sorted(sizes)}")
        return EventStream(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.t for part in parts]),
            np.concatenate([part.p for part in parts]),
            parts[0].sensor_size,
            sum(part.num_dropped for part in parts),
        )._sorted()

    def __len__(self) -> int:
        return len(self.t)

    def slice(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us, as views; `num_dropped` is not carried over."""
        first, last = np.searchsorted(self.t, [start_us, max(start_us, end_us)], side="left")
        part = np.s_[first:last]
        return EventStream(self.x[part], self.y[part], self.t[part], self.p[part], self.sensor_size)

    def reverse(self, start_us: int, end_us: int) -> EventStream:
        """The same events as seen by time running backwards over [start_us, end_us].

        Times are mirrored (t -> start_us + end_us - t), the order and every polarity are reversed. Nothing is cut off,
        so reversing twice gives the same stream again.
        """
        return EventStream(
            np.ascontiguousarray(self.x[::-1]),
            np.ascontiguousarray(self.y[::-1]),
            np.int64(start_us + end_us) - self.t[::-1],
            -self.p[::-1],
            self.sensor_size,
            self.num_dropped,
        )

    def _sorted(self) -> EventStream:
        if np.all(self.t[1:] >= self.t[:-1]):
            return self
        order = np.argsort(self.t, kind="stable")
        return EventStream(
            self.x[order], self.y[order], self.t[order], self.p[order], self.sensor_size, self.num_dropped
        )


def check_sensor_size(sensor_size: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) as plain integers.

    Raises:
        InputError: it is not two positive integers, or a sensor of that size is too large to be one.
    """
    try:
        width, height = sensor_size
    except (TypeError, ValueError):
        raise InputError(f"sensor size must be (width, height), got {sensor_size!r}") from None
    for bound in (width, height):
        if isinstance(bound, bool) or not isinstance(bound, int | np.integer) or not 1 <= bound <= MAX_SIDE:
            raise InputError(
                f"sensor size must be two positive integers (width, height) of at most {MAX_SIDE}, got {sensor_size!r}"
            )
    check_pixels("sensor size", int(width), int(height), "a sensor")
    return int(width), int(height)


def _as_columns(**columns: ArrayLike) -> dict[str, NDArray[Any]]:
    arrays = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if array.ndim != 1:
            raise InputError(f"event column {name} must have one dimension, got shape {array.shape}")
        if array.size == 0:
            array = array.astype(_COLUMN_DTYPES[name])
        if array.dtype.kind not in ("iuf" if name != "p" else "iufb"):
            raise InputError(f"event column {name} must hold numbers, got {array.dtype}")
        arrays[name] = array
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError(f"event columns must have equal lengths, got {found}")
    return arrays


def _whole_times(times: NDArray[Any]) -> NDArray[np.int64]:
    if times.dtype.kind == "f":
        _require_finite(times, "t")
        times = np.rint(times)
    too_large = (times > MAX_ABS_TIME_US) | (times < -MAX_ABS_TIME_US) if times.dtype.itemsize >= 8 else None
    if too_large is not None and too_large.any():
        found = times[np.argmax(too_large)]
        raise InputError(f"event times must lie within ±2^61 µs, got {found}; are they really microseconds?")
    return times.astype(np.int64, copy=False)


def _whole_pixels(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    _require_finite(values, name)
    whole: NDArray[Any] = np.floor(values)
    fractional = whole != values
    if fractional.any():
        raise InputError(
            f"event coordinates must be whole pixels, got {name}={values[np.argmax(fractional)]}; "
            "round sub-pixel coordinates down first"
        )
    return whole


def _signed_polarity(values: NDArray[Any], convention: PolarityConvention) -> NDArray[np.int8]:
    if convention not in ("signed", "binary"):
        raise InputError(f"polarity convention must be 'signed' or 'binary', got {convention!r}")
    if values.dtype.kind == "b":
        if convention == "signed":
            raise InputError("boolean polarities are 0/1, not -1/+1; pass polarity='binary'")
        return np.where(values, np.int8(1), np.int8(-1))
    low, other = (-1, "binary") if convention == "signed" else (0, "signed")
    wrong = (values != low) & (values != 1)
    if wrong.any():
        raise InputError(
            f"{convention} polarities must be {low} or 1, got {values[np.argmax(wrong)]}; "
            f"the other convention is polarity='{other}'"
        )
    return np.where(values == 1, np.int8(1), np.int8(-1))


def _require_finite(values: NDArray[Any], name: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        num = len(values) - int(np.count_nonzero(finite))
        raise InputError(f"event column {name} must be finite, got {values[first]} at event {first} ({num} in all)")
