"""Decoders of the encodings in which ROS messages carry events.

- records: whole events with their own ROS time.
- evt2, evt3: Prophesee's words as the camera sends them, one stream over all packets; times are the camera's clock.
- mono: 8 bytes per event (polarity 1 bit, y 15, x 16, ns since the time base 32); times are the camera's clock.
- libcaer: 8 bytes per event (x 15 bits, y 15, polarity, valid; µs since the time base 32); times are ROS time.
- libcaer_cmp: 16-bit words, each packet on its own (`ros_loops.read_libcaer_words`); times are ROS time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.events.formats import word_state
from evfi.events.formats.ros_messages import RECORDS, EventMessage
from evfi.events.formats.word_state import Columns

NUM_STATE: Final = word_state.NUM_STATE
_MAX_EVENTS: Final = 2**24  # of one message, which is decoded at once; cameras send some 100,000
_MAX_VECTOR_EVENTS: Final = 2**22  # of one message with fewer words than that, each of which may stand for up to twelve
CAMERA_CLOCKS: Final = ("evt2", "evt3", "mono")
"""Encodings whose times begin when the camera does."""


class EventDecoder:
    """Decodes messages of one encoding one after another.

    Args:
        encoding: its name.
        state: where to go on, int64 [`NUM_STATE`]; None begins anew.

    Attributes:
        state: what it must know of earlier messages; it changes with each message.
        num_triggers: triggers so far.
        num_unknown: words of no known kind so far.
        num_undated: events left out so far because no time was told yet.

    Raises:
        ValueError: the encoding is not known.
    """

    def __init__(self, encoding: str, state: NDArray[np.int64] | None = None):
        if encoding not in _DECODERS:
            known = ", ".join(f"'{name}'" for name in _DECODERS if name != RECORDS)
            raise ValueError(
                f"packets in encoding '{encoding}' cannot be read (supported: {known}); "
                "republish the events as dvs_msgs/EventArray or in evt3 and record them again"
            )
        self._decode = _DECODERS[encoding]
        self._has_words = encoding in ("evt2", "evt3")
        fresh = word_state.initial_state() if self._has_words else np.zeros(NUM_STATE, np.int64)
        self.state = fresh if state is None else state.copy()
        self.num_triggers = self.num_unknown = self.num_undated = 0

    def decode(self, message: EventMessage) -> Columns:
        """The events of the next message: x, y, t in µs, p (+1, -1), in its order.

        Raises:
            ValueError: the message is damaged.
        """
        return self._decode(self, message)

    @property
    def num_clock_wraps(self) -> int:
        """How often the camera's clock began again."""
        return int(self.state[word_state.LOOPS]) if self._has_words else 0

    def _records(self, message: EventMessage) -> Columns:
        from evfi.events.formats.ros_loops import read_records

        columns = _room_for(message.count)
        data = np.frombuffer(message.payload, np.uint8)
        if num_wrong := read_records(data, message.is_cdr, message.is_big, *columns):
            raise ValueError(f"{num_wrong} polarities are neither 0 nor 1")
        return columns

    def _evt2(self, message: EventMessage) -> Columns:
        from evfi.events.formats.evt2_words import decode_evt2

        return self._prophesee_words(decode_evt2, _words_of(message, "<u4").astype(np.uint32, copy=False))

    def _evt3(self, message: EventMessage) -> Columns:
        from evfi.events.formats.evt_words import decode_evt3

        return self._prophesee_words(decode_evt3, _words_of(message, "<u2").astype(np.uint16, copy=False))

    def _prophesee_words(self, decode: Callable[..., int], words: NDArray[Any]) -> Columns:
        """Count the events, make room, and decode."""
        limits = np.array([word_state.NO_SIZE, word_state.NO_SIZE, word_state.NO_LIMIT, word_state.NO_LIMIT], np.int64)
        counted = word_state.new_tally()
        decode(words, self.state.copy(), limits, None, None, None, None, None, counted)
        x, y, t, p = _room_for(int(counted[word_state.EVENTS]), len(words))
        tally = word_state.new_tally()
        decode(words, self.state, limits, x, y, t, p, t[:0], tally)
        self.num_triggers += int(tally[word_state.TRIGGERS])
        self.num_unknown += int(tally[word_state.UNKNOWN])
        self.num_undated += int(tally[word_state.UNDATED])
        return x, y, t, p

    def _mono(self, message: EventMessage) -> Columns:
        words = _words_of(message, "<u8")
        times = ((words & 0xFFFFFFFF).astype(np.int64) + _checked_base(message) + 500) // 1000
        x, y = (words >> 32 & 0xFFFF).astype(np.int32), (words >> 48 & 0x7FFF).astype(np.int32)
        return x, y, times, _signs(words >> 63)

    def _libcaer(self, message: EventMessage) -> Columns:
        pairs = _words_of(message, np.dtype([("data", "<u4"), ("time", "<u4")]))
        data, low = pairs["data"], (pairs["time"] & 0x7FFFFFFF).astype(np.int64)
        wraps = np.cumsum(np.diff(low, prepend=low[:1]) < -(2**30)) << 31
        times = (_checked_base(message) + 500) // 1000 + low + wraps
        x, y = (data >> 17 & 0x7FFF).astype(np.int32), (data >> 2 & 0x7FFF).astype(np.int32)
        return x, y, times, _signs(data >> 1 & 1)

    def _libcaer_words(self, message: EventMessage) -> Columns:
        from evfi.events.formats.ros_loops import count_libcaer_words, read_libcaer_words

        words = _words_of(message, "<u2").astype(np.uint16, copy=False)
        count, num_unknown = count_libcaer_words(words)
        columns = _room_for(count, len(words))
        self.state[0] = read_libcaer_words(words, _checked_base(message), int(self.state[0]), *columns)
        self.num_unknown += num_unknown
        return columns


_DECODERS: Final[dict[str, Callable[[EventDecoder, EventMessage], Columns]]] = {
    RECORDS: EventDecoder._records,
    "evt3": EventDecoder._evt3,
    "evt2": EventDecoder._evt2,
    "libcaer_cmp": EventDecoder._libcaer_words,
    "libcaer": EventDecoder._libcaer,
    "mono": EventDecoder._mono,
}


def _words_of(message: EventMessage, dtype: str | np.dtype[Any]) -> NDArray[Any]:
    kind = np.dtype(dtype)
    if len(message.payload) % kind.itemsize:
        raise ValueError(
            f"a packet of {len(message.payload)} bytes is not a whole number of {kind.itemsize}-byte words"
        )
    words: NDArray[Any] = np.frombuffer(message.payload, kind)
    if len(words) > _MAX_EVENTS:
        raise ValueError(f"a message of {len(words)} words is longer than the {_MAX_EVENTS} that can be read")
    return words


def _room_for(count: int, num_words: int | None = None) -> Columns:
    """Room for the events of a message.

    Args:
        count: how many they are.
        num_words: words that they stand in, where one may stand for many events.

    Raises:
        ValueError: they are too many.
    """
    most = _MAX_EVENTS if num_words is None else min(_MAX_EVENTS, max(_MAX_VECTOR_EVENTS, num_words))
    if count > most:
        raise ValueError(f"a message of {count} events is longer than the {most} that can be read")
    return word_state.empty_columns(count)


def _checked_base(message: EventMessage) -> int:
    if message.time_base_ns >= 2**62:
        raise ValueError(f"a time base of {message.time_base_ns} ns is impossible")
    return message.time_base_ns


def _signs(bits: NDArray[Any]) -> NDArray[np.int8]:
    return np.where(bits != 0, np.int8(1), np.int8(-1))
