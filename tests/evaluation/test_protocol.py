"""Protocol files: what comes with the package, strict reading, one's own files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evfi.errors import ConfigError, RecordingError
from evfi.evaluation.cropping import crop_events, cropped
from evfi.evaluation.metrics.base import ScoredWindow
from evfi.evaluation.metrics.registry import METRICS
from evfi.evaluation.protocol import (
    Crop,
    DropRule,
    WindowRule,
    load_protocol,
    protocol_from_dict,
    protocol_from_text,
    protocol_names,
)
from evfi.events.stream import EventStream
from evfi.recordings.opening import RECORDING_FORMATS
from evfi.sampling import config as config_module
from evfi.sampling.config import SamplingConfig

NAMES = ("raw", "vdm-evfi", "cbmnet", "continuitycam", "refid", "timelens-xl")


def test_all_protocols_are_there_and_survive_a_round_trip() -> None:
    assert protocol_names() == NAMES
    for name in NAMES:
        protocol = load_protocol(name)
        assert protocol.name == name
        assert protocol_from_text(json.dumps(protocol.to_dict()), name) == protocol


def test_the_published_evaluation_of_vdm_evfi() -> None:
    """METHOD.md, section 5, spelled out."""
    protocol = load_protocol("vdm-evfi")
    assert protocol.windows == WindowRule(first=0, stride="skip+1", tail_margin=5, tail_after="last", at_least_one=True)
    assert protocol.drop == DropRule(empty=True, one_polarity=True, max_ratio=10.0, min_ratio=0.2)
    assert (protocol.truths, protocol.size, protocol.crop) == (("vae", "raw"), "floor8", None)
    assert protocol.metrics == ("psnr_rgb", "ssim_y_pyiqa", "lpips_alex")
    assert protocol.sampling == {"size_mode": "resize", "refinement": False}


def test_what_the_protocol_leaves_to_the_model_is_the_published_sampling() -> None:
    """METHOD.md, section 3: the released weights bring no settings of their own."""
    config = SamplingConfig.from_defaults(load_protocol("vdm-evfi").sampling)
    assert (config.num_inference_steps, config.s_churn, config.decode_chunk_size) == (25, 0.5, 2)
    assert (config.tile_width, config.tile_height, config.tile_overlap) == (512, 320, 0.1)
    assert (config.min_guidance_scale, config.max_guidance_scale) == (1.0, 3.0)
    assert (config.fps - 1, config.motion_bucket_id, config.noise_aug_strength) == (6, 127, 0.02)
    assert (config.reinjection_until_step, config.num_reinjections, config.size_mode) == (0, 0, "resize")


def test_raw_leaves_nothing_out() -> None:
    protocol = load_protocol("raw")
    assert not protocol.drop.asks
    assert (protocol.skips, protocol.truths, protocol.size, protocol.crop) == ((1, 3, 7), ("raw",), "original", None)
    assert not protocol.deviations and not protocol.unverified


def test_protocols_of_others_say_what_is_not_known() -> None:
    for name in NAMES[1:]:
        protocol = load_protocol(name)
        assert protocol.unverified
        assert "github.com" in protocol.source or "arXiv" in protocol.source


def test_layouts_are_those_of_readers() -> None:
    known = {reader.name for reader in RECORDING_FORMATS}
    for name in NAMES:
        assert set(load_protocol(name).layouts) <= known, name


def test_metrics_are_known() -> None:
    known = {metric.name for metric in METRICS} | {"lpips_alex"}
    for name in NAMES:
        assert set(load_protocol(name).metrics) <= known, name


def test_every_protocol_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/protocols.md").read_text(encoding="utf-8")
    keys = set(load_protocol("raw").to_dict()) | {"tail_margin", "tail_after", "at_least_one", "one_polarity", "fewer"}
    for word in (*NAMES, *sorted(keys)):
        assert re.search(rf"`[^`]*\b{word}\b[^`]*`", page), word
    example = page.split("```json\n")[1].split("```")[0]
    assert protocol_from_text(example, "docs/protocols.md").windows.stride == 2


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"^no protocol 'row'; known are raw, vdm-evfi, .*or give the path"):
        load_protocol("row")


def own(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**load_protocol("raw").to_dict(), "name": "mine", **changes}), encoding="utf-8")
    return path


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    protocol = load_protocol(own(tmp_path, skips=[5], crop={"multiple": 16, "fewer": 0}))
    assert (protocol.name, protocol.skips, protocol.crop) == ("mine", (5,), Crop(16, 0))
    without_suffix = tmp_path / "mine"
    shutil.copy(tmp_path / "mine.json", without_suffix)
    assert load_protocol(without_suffix) == protocol


def test_retired_settings_of_a_file_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config_module._warn_of_retired.cache_clear()
    protocol = load_protocol(own(tmp_path, sampling={"fps": 9, "detail_restoration": False}))
    assert protocol.sampling == {"fps": 9}
    assert "detail_restoration, read from a file, has no effect since version" in caplog.text


def test_a_known_name_keeps_its_rules(tmp_path: Path) -> None:
    assert load_protocol(own(tmp_path, name="raw")) == load_protocol("raw")
    with pytest.raises(ConfigError, match="'raw', but it differs from the protocol of that name"):
        load_protocol(own(tmp_path, name="raw", skips=[2]))


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"format": "evfi"}, '"format" of the protocol must be "evfi-protocol", found "evfi"'),
    ({"version": 2}, '"version" of the protocol must be 1, found 2'),
    ({"version": 1.0}, '"version" of the protocol must be a whole number'),
    ({"colour": 1}, 'unknown key "colour" in the protocol; expected one of average, crop'),
    ({"name": "My own"}, "lower-case letters"),
    ({"name": "../raw"}, "lower-case letters"),
    ({"title": " "}, "a non-empty string"),
    ({"skips": []}, "a list of whole numbers from 1 to 1000, found []"),
    ({"skips": [0]}, "from 1 to 1000"),
    ({"skips": [True]}, "from 1 to 1000"),
    ({"skips": [3, 3]}, "a list without duplicates"),
    ({"skips": 3}, "must be a list of whole numbers, found 3"),
    ({"windows": {}}, '"windows" lacks "stride"; add it'),
    ({"windows": []}, 'expected "windows" to be an object, found []'),
    ({"drop": {"empty": 1}}, '"empty" of "drop" must be true or false, found 1'),
    ({"size": "floor16"}, '"size" of the protocol must be one of original, floor8, found "floor16"'),
    ({"size": ["raw"]}, "must be one of original, floor8"),
    ({"crop": {"multiple": 0, "fewer": 0}}, '"multiple" of "crop" must be a whole number from 1'),
    ({"crop": False}, 'expected "crop" to be an object'),
    ({"truths": []}, "a list of some of raw, vae"),
    ({"truths": ["raw", "raw"]}, "without duplicates"),
    ({"sampling": {"steps": 5}}, '"sampling" of the protocol: unknown sampling setting steps'),
    ({"sampling": {"upscale": 0}}, "upscale must be from 1 to 8, got 0"),
    ({"sampling": None}, "an object of sampling settings"),
    ({"metrics": [1]}, "a list of strings"),
    ({"average": "all"}, "one of frames, windows, sequences"),
    ({"unverified": ["skips"]}, 'expected an entry of "unverified" to be an object, found "skips"'),
    ({"unverified": [{"what": "skips"}]}, 'lacks "why"'),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
def test_broken_files_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_protocol(own(tmp_path, **changes))
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "mine.json"))
    assert "\n" not in str(refused.value)


def test_broken_rules_are_refused() -> None:
    raw = load_protocol("raw").to_dict()
    for part, changes, message in (
        ("windows", {"stride": "skip"}, '"stride" of "windows" must be "skip\\+1" or a whole number from 1'),
        ("windows", {"stride": 0}, "from 1"),
        ("windows", {"tail_margin": -1}, "from 0"),
        ("windows", {"tail_after": "end"}, "one of last, first"),
        ("drop", {"max_ratio": 0}, '"max_ratio" of "drop" must be null or a number'),
        ("drop", {"max_ratio": True}, "null or a number"),
        ("drop", {"max_ratio": 1, "min_ratio": 2}, r"at least min_ratio \(2.0\), found 1.0"),
        ("drop", {"ratio": 2}, 'unknown key "ratio" in "drop"'),
    ):
        with pytest.raises(ConfigError, match=message):
            protocol_from_dict({**raw, part: {**raw[part], **changes}}, "mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a protocol in JSON"),
        (b"[]", "expected the protocol to be an object"),
        (b'{"name": NaN}', "NaN is not a JSON number"),
        (b'{"name": 1, "name": 2}', "duplicate key 'name'"),
        (b"\xff\xfe", "expected a protocol in UTF-8"),
        (b"[" * 100_000, "expected a protocol in JSON"),
        (b"9" * 5000, "expected a protocol in JSON"),
        (b" " * 300_000, "at most 256 KiB"),
    ],
)
def test_files_that_are_no_protocols(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_protocol(path)


PLACES = [(key, part) for key, value in load_protocol("timelens-xl").to_dict().items()
          for part in (value if isinstance(value, dict) else [None])]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(place=st.sampled_from(PLACES), value=JSON)
def test_whatever_a_file_holds_it_is_a_protocol_or_a_config_error(place: tuple[str, str | None], value: Any) -> None:
    data = load_protocol("timelens-xl").to_dict()
    key, part = place
    if part is None:
        data[key] = value
    else:
        data[key][part] = value
    try:
        protocol = protocol_from_text(json.dumps(data), "mine")
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith("mine: ")
    else:
        assert protocol_from_dict(protocol.to_dict(), "mine") == protocol


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected the protocol .*none.json; there is no such file"):
        load_protocol(tmp_path / "none.json")


def test_crop_of_timelens_xl() -> None:
    crop = load_protocol("timelens-xl").crop
    assert crop is not None
    assert crop.box((970, 625)) == (21, 24, 949, 600)  # 928 × 576
    assert crop.box((64, 95)) == (16, 31, 48, 63)
    with pytest.raises(RecordingError, match=r"frames of 63×64 px are too small.*at least 64 px per side"):
        crop.box((63, 64))


def test_cropped_windows_hold_the_same_pixels_and_events() -> None:
    frames = np.arange(3 * 10 * 13 * 3, dtype=np.uint32).astype(np.uint8).reshape(3, 10, 13, 3)
    mask = np.zeros((3, 10, 13), np.bool_)
    mask[:, 4, 6] = True
    x, y = np.array([2, 3, 10, 9, 6]), np.array([4, 1, 4, 8, 9])  # the box is x 2…10, y 1…9
    events = EventStream.from_arrays(x, y, [1, 2, 3, 4, 5], [1, -1, 1, -1, 1], (13, 10))
    window = ScoredWindow(frames, frames.copy(), np.array([0, 5, 10]), {"moving": mask}, events)
    assert cropped(window, None) is window
    part = cropped(window, Crop(8, 0))
    assert np.array_equal(part.frames, frames[:, 1:9, 2:10])
    assert np.array_equal(part.truth, part.frames)
    assert np.argwhere(part.regions["moving"][0]).tolist() == [[3, 4]]
    assert part.events is not None and part.events.sensor_size == (8, 8)
    assert list(zip(part.events.x, part.events.y, part.events.t, part.events.p, strict=True)) == [
        (0, 3, 1, 1), (1, 0, 2, -1), (7, 7, 4, -1)
    ]  # fmt: skip


def test_cropped_events_of_a_coarser_grid() -> None:
    """A grid of half the resolution: pixels count by their centres."""
    events = EventStream.from_arrays([0, 1, 4, 5], [0, 1, 2, 2], [1, 2, 3, 4], [1, 1, 1, 1], (6, 4))
    part = crop_events(events, (12, 8), (2, 2, 10, 6))
    assert part.sensor_size == (4, 2)
    assert list(zip(part.x, part.y, part.t, strict=True)) == [(0, 0, 2), (3, 1, 3)]


def test_windows_without_events_left_have_none() -> None:
    frames = np.zeros((3, 10, 10, 3), np.uint8)
    events = EventStream.from_arrays([0], [0], [1], [1], (10, 10))
    assert cropped(ScoredWindow(frames, frames, np.array([0, 5, 10]), {}, events), Crop(8, 0)).events is None
