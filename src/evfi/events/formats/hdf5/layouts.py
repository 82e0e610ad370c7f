"""Known layouts of events in HDF5, detected from the names and types of a file's datasets.

| layout | datasets | convention |
|---|---|---|
| prophesee | `CD/events` of records x, y, p, t (ECF, gzip or none), `EXT_TRIGGER/events` | µs; attribute `geometry` "W×H" |
| dsec | `events/{x,y,t,p}`, `t_offset`, `ms_to_idx` | µs after `t_offset`, which is added; 640×480 |
| event_utils | `events/{xs,ys,ts,ps}` | s; attribute `sensor_resolution` (height, width); images next to it |
| v2e | `events` [N, 4] of whole numbers: t, x, y, p | µs |
| mvsec | `davis/left/events` [N, 4]: x, y, t, p | s; 346×260 |
| columns | x, y, t, p (or the like) at the root or in `events`; or `events` of records | unit detected from the values |
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

from evfi.errors import InputError
from evfi.events.file_options import TimeUnit
from evfi.events.formats.columns import COLUMN_NAMES, match_columns
from evfi.events.formats.event_table import EventTable, Layout
from evfi.events.formats.hdf5.container import ECF_FILTER, Hdf5File, filters_of, one_line_errors
from evfi.events.formats.hdf5.tables import EcfRecords, Matrix, Records, SeparateColumns

DSEC_SIZE: Final = (640, 480)
MVSEC_SIZE: Final = (346, 260)
KNOWN: Final = (
    "CD/events (Prophesee), events/{x,y,t,p} (DSEC), events/{xs,ys,ts,ps} (event_utils), events [N, 4] (v2e), "
    "davis/left/events (MVSEC), or x, y, t, p at the root"
)
_MAX_SIDE: Final = 2**15
_MAX_OFFSET_US: Final = 2**60
_MAX_PROBES: Final = 64
_ANY_NAME: Final = {name for names in COLUMN_NAMES.values() for name in names}


def find_layout(file: Hdf5File, *, tolerant: bool = False) -> Layout:
    """Detect the layout of a file's events.

    Args:
        file: the file.
        tolerant: where columns differ in length, take what all have.

    Raises:
        InputError: it is none of those known, or breaks its own rules.
    """
    if file.has("CD/events"):
        return _prophesee(file)
    if file.group("events") is not None:
        return _grouped(file, tolerant=tolerant)
    if (events := file.dataset("events")) is not None:
        return _single(file, events)
    if file.has("davis/left/events"):
        return _mvsec(file)
    names = [name for name in file.names(limit=1000) if name.lower() in _ANY_NAME]
    if len(names) >= 4:
        return _columns(file, "", names, tolerant=tolerant)
    raise InputError(f"{file.path}: expected events as {KNOWN}; found {file.describe()}")


def _prophesee(file: Hdf5File) -> Layout:
    events = file.required("CD/events")
    _require_records(file, events, ("x", "y", "p", "t"))
    codes = filters_of(events)
    coding = "ecf" if ECF_FILTER in codes else "plain" if not codes else "compressed"
    table: EventTable = (
        EcfRecords(file.path, events) if coding == "ecf" else Records(file.path, events, {n: n for n in "xytp"})
    )
    triggers = file.dataset("EXT_TRIGGER/events")
    num_triggers = int(triggers.shape[0]) if triggers is not None and triggers.ndim == 1 else 0
    convention = "times in µs of the sensor's clock; x right, y down; polarity 1 = brighter"
    return Layout(f"hdf5 prophesee {coding}", convention, table, _geometry(file), "us", num_triggers=num_triggers)


def _geometry(file: Hdf5File) -> tuple[int, int] | None:
    """The sensor's size, as Prophesee's writers put it into the file's attributes."""
    for of in ("", "CD", "CD/events"):
        if found := re.fullmatch(r"\s*(\d{1,5})\s*[x×]\s*(\d{1,5})\s*", str(file.attribute("geometry", of))):
            return _size(int(found[1]), int(found[2]))
        text = str(file.attribute("format", of))
        sides = [re.search(rf"{name}=(\d{{1,5}})", text) for name in ("width", "height")]
        if sides[0] and sides[1]:
            return _size(int(sides[0][1]), int(sides[1][1]))
        if size := _size(file.attribute("width", of), file.attribute("height", of)):
            return size
    return None


def _grouped(file: Hdf5File, *, tolerant: bool) -> Layout:
    names = file.names("events", limit=1000)
    if {"xs", "ys", "ts", "ps"} <= set(names):
        layout = _columns(file, "events", ["xs", "ys", "ts", "ps"], tolerant=tolerant)
        convention = "times in s, rounded to µs; x right, y down; polarity True = brighter"
        size, notes = _event_utils_size(file)
        unit: TimeUnit | None = "s" if _is_float(layout) else None
        notes = (*layout.notes, *notes)
        return Layout("hdf5 event_utils", convention, layout.table, size, unit, notes=notes)
    layout = _columns(file, "events", [name for name in names if name.lower() in _ANY_NAME], tolerant=tolerant)
    if not (file.has("ms_to_idx") or file.has("t_offset")):
        return layout
    offset = _dsec_offset(file)
    notes = (*layout.notes, *_check_ms_to_idx(file, layout.table))
    convention = f"times in µs after t_offset ({offset} µs), which is added; x right, y down; polarity 1 = brighter"
    size = layout.sensor_size or DSEC_SIZE
    return Layout("hdf5 dsec", convention, layout.table, size, "us", offset, notes=notes)


def _dsec_offset(file: Hdf5File) -> int:
    dataset = file.dataset("t_offset")
    if dataset is None:
        return 0
    if dataset.size != 1 or dataset.dtype.kind not in "iu":
        raise InputError(
            f"{file.path}: t_offset must be one whole number of µs, found {dataset.dtype} {list(dataset.shape)}"
        )
    with one_line_errors(file.path, "t_offset cannot be read"):
        offset = int(np.asarray(dataset[()]).reshape(-1)[0])
    if abs(offset) > _MAX_OFFSET_US:
        raise InputError(f"{file.path}: t_offset is {offset} µs, which is not a valid time; check the file")
    return offset


def _check_ms_to_idx(file: Hdf5File, table: EventTable) -> tuple[str, ...]:
    """A note where the file's own index contradicts its times (it is not needed to read them)."""
    dataset = file.dataset("ms_to_idx", is_probed=True)
    if dataset is None or dataset.ndim != 1 or len(dataset) == 0 or dataset.dtype.kind not in "iu":
        return ()
    with one_line_errors(file.path, "ms_to_idx cannot be read"):
        steps = np.unique(np.linspace(0, len(dataset) - 1, _MAX_PROBES).astype(int)).tolist()
        for ms in steps:
            first = int(dataset[ms])
            around = table.read_times(max(first - 1, 0), min(first + 1, table.num_events)).astype(np.int64)
            is_late = first < table.num_events and (len(around) == 0 or around[-1] < 1000 * ms)
            if not 0 <= first <= table.num_events or is_late or (first > 0 and around[0] >= 1000 * ms):
                return (f"ms_to_idx contradicts the times at {ms} ms; using the times as they are",)
    return ()


def _event_utils_size(file: Hdf5File) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """(width, height) by the attribute, which is (height, width), or by the first image."""
    declared = file.attribute("sensor_resolution")
    values = np.asarray(declared).reshape(-1) if declared is not None else np.zeros(0)
    size = _size(values[1], values[0]) if len(values) >= 2 else None
    images = [name for name in file.names("images") if name.startswith("image")]
    image = file.dataset(f"images/{images[0]}") if images else None
    if image is None or image.ndim not in (2, 3):
        return size, ()
    shown = _size(image.shape[1], image.shape[0])
    if size is not None and shown is not None and size != shown:
        note = f"sensor_resolution says (height, width) = ({size[1]}, {size[0]}), the images are {shown[0]}×{shown[1]}"
        return shown, (f"{note}; using the size of the images",)
    return shown or size, ()


def _single(file: Hdf5File, events: Any) -> Layout:
    """A dataset `events`: v2e's matrix, or records."""
    size = _size(file.attribute("width"), file.attribute("height"))
    if events.dtype.names:
        fields = match_columns(list(events.dtype.names), f"{file.path}: dataset 'events'")
        _require_records(file, events, tuple(fields.values()))
        convention = "fields x, y, t, p; x right, y down"
        return Layout("hdf5 records", convention, Records(file.path, events, fields), size)
    if events.ndim != 2 or events.shape[1] != 4 or events.dtype.kind not in "iu":
        raise InputError(
            f"{file.path}: expected 'events' as whole numbers [N, 4] (t in µs, x, y, p, as v2e writes them) or as records, "
            f"found {events.dtype} {list(events.shape)}"
        )
    frames = file.dataset("frame")
    if frames is not None and frames.ndim == 3:
        size = _size(frames.shape[2], frames.shape[1])
    convention = "columns t (µs), x, y, p; x right, y down; polarity 1 = brighter"
    return Layout("hdf5 v2e", convention, Matrix(file.path, events, "txyp"), size, "us")


def _mvsec(file: Hdf5File) -> Layout:
    events = file.required("davis/left/events")
    if events.ndim != 2 or events.shape[1] != 4 or events.dtype.kind not in "fiu":
        raise InputError(
            f"{file.path}: expected 'davis/left/events' as numbers [N, 4] (x, y, t in s, p), found {events.dtype} "
            f"{list(events.shape)}"
        )
    images = file.dataset("davis/left/image_raw")
    size = _size(images.shape[2], images.shape[1]) if images is not None and images.ndim == 3 else None
    convention = "left camera; columns x, y, t (s, rounded to µs), p (±1); x right, y down"
    return Layout("hdf5 mvsec", convention, Matrix(file.path, events, "xytp"), size or MVSEC_SIZE, "s")


def _columns(file: Hdf5File, group: str, names: list[str], *, tolerant: bool) -> Layout:
    """Four datasets of one length."""
    where = f"{file.path}: group '{group or '/'}'"
    chosen = match_columns(names, where)
    datasets = {}
    for column, name in chosen.items():
        dataset = file.required(f"{group}/{name}" if group else name)
        if dataset.ndim != 1 or dataset.dtype.kind not in ("iuf" if column != "p" else "iufb"):
            raise InputError(
                f"{where}: dataset '{name}' must be a column of numbers, found {dataset.dtype} {list(dataset.shape)}"
            )
        datasets[column] = dataset
    lengths = {chosen[column]: int(dataset.shape[0]) for column, dataset in datasets.items()}
    notes: tuple[str, ...] = ()
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        if not tolerant:
            raise InputError(
                f"{where}: columns must have equal lengths, found {told}; the file is incomplete; copy it again, "
                "or read the rows that all columns have with --tolerant"
            )
        notes = (f"columns differ in length ({told}); {max(lengths.values()) - min(lengths.values())} rows are lost",)
    size = _size(file.attribute("width"), file.attribute("height"))
    table = SeparateColumns(file.path, datasets, min(lengths.values()))
    return Layout("hdf5 columns", "columns x, y, t, p; x right, y down", table, size, notes=notes)


def _require_records(file: Hdf5File, events: Any, fields: tuple[str, ...]) -> None:
    names = events.dtype.names or ()
    is_right = events.ndim == 1 and set(fields) <= set(names) and len(set(fields)) == 4
    if not is_right or any(events.dtype[name].kind not in "iufb" for name in fields):
        raise InputError(
            f"{file.path}: expected dataset '{events.name}' as records of numbers x, y, p, t; found {events.dtype} "
            f"{list(events.shape)}".replace("\n", " ")
        )


def _is_float(layout: Layout) -> bool:
    table = layout.table
    return isinstance(table, SeparateColumns) and table.datasets["t"].dtype.kind == "f"


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """Two sides of a sensor, if they can be that."""
    try:
        sides = int(width), int(height)
    except (TypeError, ValueError, OverflowError):
        return None
    return sides if all(0 < side <= _MAX_SIDE for side in sides) else None
