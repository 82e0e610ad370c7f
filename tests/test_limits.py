"""Files that claim, or unpack to, far more than they hold are refused before memory or disk is taken for it."""

from __future__ import annotations

import bz2
import gzip
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zstandard
from PIL import Image

from evfi import cli, limits
from evfi.cli.numbers import MAX_WHOLE
from evfi.cli.options import parse
from evfi.errors import ConfigError, EvfiError, InputError
from evfi.events.file_options import EventFileOptions
from evfi.events.filters import check_filter_time
from evfi.events.formats import open_event_file
from evfi.events.formats.aedat4_unpacking import unpack
from evfi.events.formats.hdf5 import is_hdf5
from evfi.events.formats.npz import read_arrays
from evfi.events.formats.npz_members import damaged
from evfi.events.source import ChunkedEvents, EventChunk
from evfi.events.stream import EventStream, check_sensor_size
from evfi.interpolator import Interpolator
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_plan import plan_job, read_times
from evfi.pipeline.outputs import Targets
from evfi.recordings.datasets.ecd import open_recording as open_ecd
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.recordings.opening import open_recording
from evfi.recordings.options import RecordingOptions
from evfi.recordings.planning import plan_windows
from evfi.recordings.timestamps import read_timestamps
from evfi.training.textures import load_textures
from evfi.video.io import VideoFrames, read_image
from file_writers import hostile

SIZE = EventFileOptions((32, 32))
COLUMNS = {"x": "<u2", "y": "<u2", "t": "<i8", "p": "|u1"}
NUM_TOO_MANY = 2**23
"""Events whose columns take 104 MiB."""


class TestBudget:
    def test_in_proportion_and_never_below_what_is_free(self) -> None:
        assert limits.allowed_bytes(10) == limits.FREE_BYTES
        assert limits.allowed_bytes(2**24) == limits.MAX_RATIO * 2**24
        assert limits.allowed_bytes(2**30) == limits.MAX_BYTES_IN_MEMORY
        assert limits.allowed_bytes(2**30, in_memory=False) == limits.MAX_RATIO * 2**30

    def test_the_error_says_both_sizes_and_how_to_raise_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(InputError, match=r"a: 1\.0 KiB may unpack to at most 64\.0 MiB, found 3\.0 GiB; .*GIB=3$"):
            limits.check_bytes("a", 3 * 2**30, 1024)
        monkeypatch.setenv(limits.VARIABLE, "3")
        limits.check_bytes("a", 3 * 2**30, 1024)

    @pytest.mark.parametrize("value", ["0", "-1", "much", "nan", "1e30"])
    def test_a_limit_that_is_none_is_refused(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(limits.VARIABLE, value)
        with pytest.raises(ConfigError, match=f"positive number of GiB, got '{value}'"):
            limits.allowed_bytes(1)

    @pytest.mark.parametrize("value", ["0", "nan", "1e308"])
    def test_a_wrong_limit_is_not_taken_for_a_damaged_file(
        self, tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.savez_compressed(tmp_path / "e.npz", **{name: np.zeros(9, kind) for name, kind in COLUMNS.items()})
        monkeypatch.setenv(limits.VARIABLE, value)
        message = (
            f"EVFI_MAX_UNPACKED_GIB must be a positive number of GiB, got '{value}'; unset it, or set it to e.g. 16"
        )
        with pytest.raises(ConfigError, match=f"^{message}$"):
            read_arrays(tmp_path / "e.npz")
        assert cli.main(["inspect", str(tmp_path / "e.npz")]) == 2
        assert capsys.readouterr().err == f"evfi: error: {message}\n"

    def test_a_full_disk_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="are free in"):
            limits.check_disk("a", 2**62, tmp_path)


class TestNpz:
    @pytest.mark.parametrize("read", [read_arrays, lambda path: open_event_file(path, SIZE)])
    def test_zeros(self, read: Any, tmp_path: Path) -> None:
        path = hostile.write_zeros_npz(tmp_path / "zeros.npz", COLUMNS, NUM_TOO_MANY)
        with pytest.raises(InputError, match=r"may unpack to at most 64\.0 MiB, found 104\.0 MiB"):
            read(path)

    def test_overlapping_members(self, tmp_path: Path) -> None:
        path = hostile.write_overlapping_npz(tmp_path / "overlap.npz", ["x", "y", "t", "p"], 2**16)
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None  # sound, as far as Python can tell
        with pytest.raises(InputError, match=r"overlaps another member"):
            read_arrays(path)

    def test_only_what_is_needed_is_unpacked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Any] = []
        real = tempfile.TemporaryFile
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda: made.append(real()) or made[-1])
        numbers = np.arange(100)
        path = tmp_path / "e.npz"
        columns = {"x": numbers % 32, "y": numbers % 32, "t": numbers, "p": numbers % 2}
        np.savez_compressed(path, junk=np.zeros(10**6), **columns)
        assert open_event_file(path, SIZE).time_range_us == (0, 99)
        assert len(made) == 4
        assert sum(file.seek(0, 2) for file in made) < 10_000

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    def test_members_that_hold_more_than_they_promise(self, method: int, tmp_path: Path) -> None:
        head = hostile.npy_header(100, "<i8")
        honest = head + bytes(800)
        packed, _ = hostile.deflated_zeros(head, 2**24)
        data = packed if method == zipfile.ZIP_DEFLATED else bz2.compress(honest + bytes(2**24))
        member = (method, data, zlib.crc32(honest), len(honest))
        path = hostile.write_zip(tmp_path / "lies.npz", [(f"{name}.npy", *member) for name in "xytp"])
        code = """
from pathlib import Path
from evfi.errors import InputError
from evfi.events.formats.npz import read_arrays
base()
try:
    print(len(read_arrays(Path(sys.argv[1]))["x"]))
except InputError as error:
    print(error)
"""
        num_mb, told = hostile.peak_memory_mb(code, path)
        assert num_mb < 12, told
        if method == zipfile.ZIP_DEFLATED:
            assert told == "100"  # what is behind the promise is never unpacked
        else:
            assert "a method other than deflate" in told

    def test_library_errors_are_not_quoted_whole(self) -> None:
        """Python's message on names that differ holds the name in front of the member, of up to 64 KiB."""
        error = damaged(Path("e.npz"), zipfile.BadZipFile("a" * 2**16))
        assert str(error) == f"e.npz: damaged or truncated .npz ({'a' * 500} …); copy or export it again"

    def test_header_of_a_gigabyte(self, tmp_path: Path) -> None:
        head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**20)
        data, crc = hostile.deflated_zeros(head, 2**20)
        path = hostile.write_zip(
            tmp_path / "header.npz", [("x.npy", zipfile.ZIP_DEFLATED, data, crc, len(head) + 2**20)]
        )
        with pytest.raises(InputError, match="a header of 1048576 bytes is too long"):
            read_arrays(path)


class TestPicturesAndVideos:
    def test_other_kinds_of_files_are_no_pictures(self, tmp_path: Path) -> None:
        from PIL import Image

        path = tmp_path / "000002.png"
        Image.new("RGB", (8, 8)).save(path, format="EPS")
        with pytest.raises(InputError, match="is not a readable picture"):
            read_image(path)

    def test_large_frames_in_a_small_video(self, tmp_path: Path) -> None:
        picture = hostile.png_of_zeros(8193, 8192)
        path = hostile.write_png_video(tmp_path / "large.mov", [picture] * 2, (64, 64))
        with pytest.raises(InputError, match="frames of at most 64 megapixels"):
            VideoFrames(path)

    def test_large_frame_in_the_middle(self, tmp_path: Path) -> None:
        pictures = [hostile.png_of_zeros(64, 64), hostile.png_of_zeros(8193, 8192)]
        path = hostile.write_png_video(tmp_path / "large.mov", pictures, (64, 64))
        told = r"damaged at frame .: expected frames of at most 64 megapixels"
        with VideoFrames(path) as video, pytest.raises(InputError, match=told):
            [video.read(0), video.read(1)]

    def test_frames_of_several_sizes(self, tmp_path: Path) -> None:
        pictures = [hostile.png_of_zeros(64, 64), hostile.png_of_zeros(96, 64)]
        with VideoFrames(hostile.write_png_video(tmp_path / "sizes.mov", pictures, (64, 64))) as video:
            video.read(0)
            with pytest.raises(InputError, match=r"expected 64×64 like other frames, found 96×64 at frame 1"):
                video.read(1)


class TestAedat4:
    @pytest.mark.parametrize("num_packets", [1, 8])
    def test_packets(self, num_packets: int, tmp_path: Path) -> None:
        """One that unpacks to too much, and several that do so together."""
        num = 2**22 if num_packets == 1 else 2**20
        packed = zstandard.ZstdCompressor().compress(hostile.event_packet(num + 100))
        path = hostile.aedat4_file(tmp_path / "e.aedat4", [(0, packed)] * num_packets, compression=3)
        with pytest.raises(InputError, match=r"may unpack to at most 64\.0 MiB|more than its size allows"):
            open_event_file(path)

    def test_lz4_packets(self) -> None:
        import lz4.frame

        with pytest.raises(ValueError, match=r"may unpack to at most 64\.0 MiB, found more"):
            unpack(lz4.frame.compress(bytes(2**26 + 1)), "lz4", 0)

    def test_table_of_more_packets_than_there_are(self, tmp_path: Path) -> None:
        """All offsets lead to one table in zeros, which says nothing and is valid."""
        num = 100_000
        body = struct.pack("<I4sHHHxxiII", 16, b"FTAB", 6, 8, 4, 8, 4, num)
        body += struct.pack("<I", 4 * num + 64) * num + bytes(8 * num)
        table = struct.pack("<I", len(body)) + body
        path = hostile.aedat4_file(tmp_path / "e.aedat4", [(0, hostile.event_packet(10))], table=table)
        with pytest.raises(InputError, match="lists 100000 packets, more than precede it"):
            open_event_file(path)

    def test_packets_of_nothing(self, tmp_path: Path) -> None:
        packets = [(0, hostile.event_packet(10)), *[(0, b"")] * 1000]
        with pytest.raises(InputError, match="is cut off or damaged"):
            open_event_file(hostile.aedat4_file(tmp_path / "e.aedat4", packets))

    @pytest.mark.parametrize("place", [16, 20, 28])
    @pytest.mark.parametrize("value", [0, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0])
    def test_offsets_that_lead_anywhere(self, place: int, value: int, tmp_path: Path) -> None:
        """Back to where they stand, out of the packet, and vectors of all lengths: refused, or some of the events."""
        packet = bytearray(hostile.event_packet(10))
        packet[4 + place - 4 : 4 + place] = struct.pack("<I", value)
        path = hostile.aedat4_file(tmp_path / "e.aedat4", [(0, bytes(packet))])
        try:
            source = open_event_file(path)
        except EvfiError as error:
            assert "\n" not in str(error)
        else:
            assert value == 4
            assert len(source.slice(0, 10)) <= 10

    @pytest.mark.parametrize("size", ["9" * 30, "70000", "9" * 5000])
    def test_sensor_of_any_size(self, size: str, tmp_path: Path) -> None:
        path = hostile.aedat4_file(tmp_path / "e.aedat4", [(0, hostile.event_packet(1))], size=size)
        with pytest.raises(InputError, match=r"sensor|digits"):
            open_event_file(path)


class TestHdf5:
    def test_chunk_of_zeros(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "e.h5", "w") as file:
            for name, dtype in COLUMNS.items():
                dataset = file.create_dataset(f"events/{name}", (2**24,), dtype, chunks=(2**24,), compression="gzip")
                size = 2**24 * np.dtype(dtype).itemsize
                dataset.id.write_direct_chunk((0,), zlib.compress(bytes(size)))
        with pytest.raises(InputError, match=r"in chunks of 134217728 bytes|may unpack to at most 64\.0 MiB"):
            open_event_file(tmp_path / "e.h5", SIZE)

    def test_many_chunks_of_zeros(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "e.h5", "w") as file:
            for name, dtype in COLUMNS.items():
                dataset = file.create_dataset(f"events/{name}", (2**23,), dtype, chunks=(2**20,), compression="gzip")
                packed = zlib.compress(bytes(2**20 * np.dtype(dtype).itemsize))
                for start in range(0, 2**23, 2**20):
                    dataset.id.write_direct_chunk((start,), packed)
        with pytest.raises(InputError, match=r"may unpack to at most 64\.0 MiB"):
            open_event_file(tmp_path / "e.h5", SIZE)

    @pytest.mark.parametrize("num_bytes", [512, 4096, 2**16])
    def test_user_blocks_are_passed_over(self, num_bytes: int, tmp_path: Path) -> None:
        path = tmp_path / "e.h5"
        with h5py.File(path, "w", userblock_size=num_bytes) as file:
            for name in "xytp":
                file[f"events/{name}"] = np.arange(10) % 2 if name == "p" else np.arange(10)
        with path.open("r+b") as content:
            content.write(b"what the camera's user noted")
        assert is_hdf5(path)
        source = open_event_file(path, SIZE)
        assert source.slice(0, 100).t.tolist() == list(range(10))


class TestText:
    def test_gzip(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "FREE_BYTES", 2**20)
        (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"1 1 1 1\n" * 2**20))
        with pytest.raises(InputError, match=r"may unpack to at most 1\.\d MiB, found more"):
            open_event_file(tmp_path / "e.txt.gz", SIZE)

    def test_byte_order_marks(self, tmp_path: Path) -> None:
        path = tmp_path / "times.txt"
        path.write_bytes(b"\xef\xbb\xbf10\n20\n")
        assert read_timestamps(path, "us", num_frames=2).tolist() == [10, 20]
        assert read_times(path) == [10, 20]

    def test_files_far_too_large(self, tmp_path: Path) -> None:
        with (tmp_path / "times.txt").open("wb") as file:
            file.truncate(2**24 + 1)
        with pytest.raises(InputError, match="file of frame times of at most 16 MiB, found 16777217 bytes"):
            read_timestamps(tmp_path / "times.txt", "us", num_frames=2)

    @pytest.mark.parametrize("text", ["1" * 23, "1e30", "inf", "nan", "1" * 5000])
    def test_times_that_are_none(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "times.txt"
        path.write_text(f"1\n{text}\n")
        with pytest.raises(InputError, match=f"line 2: expected a finite time within 64 bits, found '{text[:40]}'"):
            read_timestamps(path, "s", num_frames=2)
        with pytest.raises(ConfigError, match=r"line 2: expected .*, found '"):
            read_times(path)

    def test_list_of_frames(self, tmp_path: Path) -> None:
        (tmp_path / "images.txt").write_text("0.1 a.png\n" + "9" * 400 + " a.png\n")
        (tmp_path / "a.png").write_bytes(hostile.png_of_zeros(8, 8))
        with pytest.raises(InputError, match="line 2: expected a finite time"):
            open_ecd(tmp_path, RecordingOptions())


class TestSensors:
    def test_more_pixels_than_any_sensor(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="expected a sensor of at most 64 megapixels, found 32767×32767"):
            check_sensor_size((32767, 32767))
        words = struct.pack("<4H", 0x8000, 0x6001, 0x0001, 0x2001)
        (tmp_path / "e.raw").write_bytes(b"% evt 3.0\n% geometry 32767x32767\n% end\n" + words)
        with pytest.raises(InputError, match="sensor"):
            open_event_file(tmp_path / "e.raw")

    def test_one_far_event_makes_no_large_sensor(self, tmp_path: Path) -> None:
        (tmp_path / "e.txt").write_text("1 32000 32000 1\n2 1 1 1\n")
        with pytest.raises(InputError, match="a sensor of at most 64 megapixels"):
            open_event_file(tmp_path / "e.txt")

    def test_few_large_chunks_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("evfi.events.source._MAX_CACHED_EVENTS", 25)
        read: list[int] = []

        def load(number: int) -> EventChunk:
            read.append(number)
            zeros = np.zeros(10, np.int32)
            t = np.full(10, number, np.int64)
            return EventChunk(EventStream(zeros, zeros, t, np.ones(10, np.int8), (8, 8)), t[:0])

        bounds = np.array([[0, 0], [1, 1], [2, 2]])
        events = ChunkedEvents((8, 8), (0, 2), bounds, load, num_cached=16)
        for number in (0, 1, 2, 0):
            events.slice(number, number + 1)
        assert read == [0, 1, 2, 0]

    def test_events_outside_the_sensor_take_memory_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Chunks at the same time are held until the last one is read; the times of what is left out count."""
        monkeypatch.setattr("evfi.events.source._MAX_HELD_EVENTS", 25)

        def load(number: int) -> EventChunk:
            none = np.zeros(0, np.int32)
            events = EventStream(none, none, none.astype(np.int64), none.astype(np.int8), (8, 8))
            return EventChunk(events, np.full(10, 5, np.int64))

        events = ChunkedEvents((8, 8), (5, 5), np.full((4, 2), 5), load, num_cached=16)
        with pytest.raises(InputError, match="so far out of order that more than 25 would have to be held"):
            list(events.pieces())


def parsed(kind: type, *arguments: str) -> Any:
    return parse(kind, "test", arguments)


class TestNumbers:
    @pytest.mark.parametrize(
        ("kind", "option", "typed", "message"),
        [
            (JobConfig, "--insert", "100000000000000000000", "--insert must be a whole number within"),
            (JobConfig, "--insert", "1" * 5000, "--insert must be a whole number within"),
            (JobConfig, "--seed", "-100000000000000000000", "--seed must be"),
            (JobConfig, "--start", "12345678901234567890123", "--start must be a number within"),
            (JobConfig, "--end", "1e400", "--end must be a number within"),
            (JobConfig, "--slowdown", "nan", "--slowdown must be a number within"),
            (JobConfig, "--fps", "-inf", "--fps must be a number within"),
            (JobConfig, "--start", "-0.50", "start must be seconds"),
            (JobConfig, "--seed", "-1_0", "seed must be at least 0"),
            (RecordingOptions, "--background-filter-us", "100000000000000000000", "--background-filter-us must be"),
            (RecordingOptions, "--background-filter-us", "3600000001", "the background filter's time must be 1 to"),
            (RecordingOptions, "--time-offset-us", "99999999999999999999", "--time-offset-us must be"),
        ],
    )
    @pytest.mark.parametrize("joint", [" ", "="])
    def test_the_message_repeats_what_was_typed(
        self, kind: type, option: str, typed: str, message: str, joint: str
    ) -> None:
        arguments = [f"{option}={typed}"] if joint == "=" or typed.startswith("-") else [option, typed]
        with pytest.raises(ConfigError, match=message) as caught:
            parsed(kind, *arguments)
        assert f"got {typed[:60]}" in str(caught.value).replace("'", "")

    def test_two_numbers_of_one_option(self) -> None:
        assert parsed(RecordingOptions, "--sensor-size", "640", "480").sensor_size == (640, 480)
        with pytest.raises(ConfigError, match=r"--sensor-size must be .*, got '1000000000000000000000'"):
            parsed(RecordingOptions, "--sensor-size", "640", "1000000000000000000000")
        with pytest.raises(ConfigError, match="at most 64 megapixels, got 60000 60000"):
            parsed(RecordingOptions, "--sensor-size", "60000", "60000")

    def test_other_options_take_digits(self) -> None:
        assert parsed(RecordingOptions, "--events", "9" * 30).events == Path("9" * 30)
        assert parsed(JobConfig, "--seed", str(MAX_WHOLE)).seed == MAX_WHOLE

    def test_frames_to_insert(self) -> None:
        with pytest.raises(ConfigError, match="must be 1 to 1000000, got 1000000000"):
            plan_windows(np.array([0, 10_000]), insert=10**9)
        with pytest.raises(ConfigError, match="cannot insert 900000 frames at whole microseconds into the 10000 µs"):
            plan_windows(np.array([0, 10_000_000, 10_010_000]), insert=900_000)
        with pytest.raises(ConfigError, match="are more than the 10000000 allowed at a time"):
            plan_windows(np.arange(20) * 10_000_000, insert=900_000)

    def test_output_times_beyond_64_bits(self) -> None:
        with pytest.raises(ConfigError, match=r"within ±2\^61"):
            plan_windows(np.array([0, 10_000]), times_us=[1, 10**23])

    @pytest.mark.parametrize("value", [0, 10**20])
    def test_filter_time(self, value: int) -> None:
        with pytest.raises(ConfigError, match=f"1 to 3600000000 µs, got {value}"):
            check_filter_time(value)


def test_more_textures_than_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, mode, number in (("textures", "RGB", 3), ("cutouts", "RGBA", 1)):
        (tmp_path / kind).mkdir()
        for index in range(number):
            Image.new(mode, (8, 8), "white").save(tmp_path / kind / f"photo{index}.png")
    squares = 3 * 3 * 4 * 512**2 * 3 // 3 + 4 * 256**2 * 4 // 3
    monkeypatch.setattr("evfi.training.textures.MAX_BYTES_IN_MEMORY", squares)
    assert len(load_textures(tmp_path).photos[0]) == 9
    monkeypatch.setattr("evfi.training.textures.MAX_BYTES_IN_MEMORY", squares - 1)
    monkeypatch.setattr("evfi.training.textures._decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"the 4 pictures of .* take 0.0 GiB as textures; expected at most"):
        load_textures(tmp_path)


def test_a_sensor_too_large_for_stacks(tmp_path: Path) -> None:
    events = EventStream.from_arrays(*(np.zeros(300, np.int64),) * 2, np.arange(300), np.ones(300), (8192, 8192))
    frames = np.zeros((3, 24, 32, 3), np.uint8)
    write_plain_recording(tmp_path / "r", frames, np.array([0, 150, 299]), events)
    with open_recording(tmp_path / "r") as recording:
        expected = "expected an event sensor of at most 16 megapixels for interpolation, found 8192×8192"
        with pytest.raises(InputError, match=expected):
            plan_job(recording, Targets(tmp_path / "a.mp4"))
        interpolator = Interpolator.from_pretrained("evfi-tiny", diffusion=False)
        with pytest.raises(InputError, match=expected):
            next(interpolator.interpolate(recording, insert=1))
