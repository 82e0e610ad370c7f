"""The video in a job's report: thumbnails, a slice through time, and how much key frames stand out."""

from __future__ import annotations

from typing import Final

import numpy as np

from evfi.pipeline.video_pulse import MovingParts, Spread
from evfi.pipeline.video_statistics import STILL_LEVELS, KeyFrameSteps, StepSummary, Thumbnail, VideoFacts
from evfi.report.markup import Html, element, joined, number
from evfi.report.parts import table
from evfi.report.pictures import picture_element
from evfi.video.geometry import Frame

SEEN_LEVELS: Final = 1.0
"""A jump of brightness of fewer grey levels is hard to see: a picture of 8 bits cannot show a smaller one all over."""

SEEN_LOSS: Final = 0.15
"""Moving parts that are less sharp by this share stand out: real frames in place of interpolated ones lose at most 0.01 to
0.1 (the latter where a few spans are all there is), two key frames blended 0.2 to 0.3."""

_RARE: Final = 2
"""How many times as much a span must have as the median of all, to be reported if the median does not stand out."""

_LEAST_TOLD: Final = 0.005
_LARGEST_SLICE_PX: Final = 1200
_SLICE_SIZE_PX: Final = (700, 360)
_EDGE_PX: Final = (7, 3)
_KEY_COLOUR: Final = (0, 114, 178)
_NO_KEY_COLOUR: Final = (226, 226, 224)
_GAP_COLOUR: Final = (255, 255, 255)


def thumbnails_section(video: VideoFacts, origin_us: int) -> Html:
    """Small pictures in the order of time."""
    figures = [_thumbnail(thumbnail, origin_us) for thumbnail in video.thumbnails]
    words = "Sampled evenly; key frames alternate with interpolated frames. Times are from the video's first key frame."
    return joined([element("p", words, class_="note"), element("div", *figures, class_="pictures strip")])


def _thumbnail(thumbnail: Thumbnail, origin_us: int) -> Html:
    kind = "key frame" if thumbnail.is_key else "interpolated frame"
    caption = f"{_seconds(thumbnail.time_us, origin_us)} · {kind}"
    picture = picture_element(thumbnail.picture, f"{kind} at {_seconds(thumbnail.time_us, origin_us)}")
    return element("figure", picture, element("figcaption", caption))


def slice_section(video: VideoFacts, origin_us: int) -> Html:
    """One row of pixels over time, and how to read it."""
    every = "every frame" if video.xt_step == 1 else f"every {_ordinal(video.xt_step)} frame"
    what = (
        f"Row {video.row} of the picture, counted from 0 at the top, the one with the most motion around it; one line "
        f"for {every}. "
        f"Time runs downwards: {_seconds(video.first_us, origin_us)} of the recording is at the top, "
        f"{_seconds(video.last_us, origin_us)} at the bottom. Blue marks at the left edge: key frames."
    )
    how = (
        "Steady motion draws a smooth slanted line, a still object an upright one. A kink or a break in a line is a jump; a "
        "staircase is a picture that stood still and then jumped; two faint lines instead of one are two blended pictures; "
        "a stripe across is a frame that is brighter or darker than its neighbours, or misplaced. Stripes at the blue marks "
        "mean that key frames flicker."
    )
    picture = picture_element(slice_picture(video), "one row of pixels of the video over time", _LARGEST_SLICE_PX)
    figure = element("figure", picture, element("figcaption", what))
    return joined([element("p", how), element("div", figure, class_="pictures enlarged slice")])


def slice_picture(video: VideoFacts) -> Frame:
    """The slice, enlarged by whole numbers where it is small, with a mark at the left of each key frame's line."""
    num_rows, num_columns = video.xt_slice.shape[:2]
    tall, wide = max(1, _SLICE_SIZE_PX[1] // num_rows), max(1, _SLICE_SIZE_PX[0] // num_columns)
    colours = np.array((_NO_KEY_COLOUR, _KEY_COLOUR), np.uint8)[video.xt_is_key.astype(np.intp)]  # [T', 3]
    edge = colours[:, None].repeat(_EDGE_PX[0], axis=1)
    gap = np.full((num_rows, _EDGE_PX[1], 3), _GAP_COLOUR, np.uint8)
    whole = np.concatenate([edge, gap, video.xt_slice.repeat(wide, axis=1)], axis=1)
    return whole.repeat(tall, axis=0)


def key_frames_section(video: VideoFacts, origin_us: int) -> Html:
    """How key frames differ from the frames around them, in what moves and in what does not."""
    return joined([
        *_moving_part(video.moving_parts, origin_us),
        *_still_part(video.key_frame_steps, origin_us),
    ])  # fmt: skip


def _moving_part(parts: MovingParts, origin_us: int) -> list[Html]:
    how = (
        "The two key frames of each window are compared with all interpolated frames between them, over the same pixels: "
        f"those that something moved through. Sharpness is the amount of fine detail, right or wrong, less the extra noise "
        f"of key frames over interpolated frames, as measured where nothing moves. Perfect frames score about "
        f"0 %; from {_percent(SEEN_LOSS)} on, sharp key frames between blurred frames are visible as a pulse."
    )
    head = ("Moving parts, over all windows", "Half are below", "1 of 20 is below", "19 of 20 are below")
    rows = [
        _spread_row("Interpolated frames less sharp, in %", parts.sharpness_loss, 100, 0),
        _spread_row("Key frames brighter, in levels of 255", parts.brightness, 1, 2),
    ]
    counts = f"Windows compared: {parts.num_spans}; not compared, for too little motion or detail: {parts.num_still}."
    return [
        element("p", element("strong", "Where things move. "), moving_verdict(parts, origin_us)),
        table(head, [rows], None, "compact wrapped"),
        element("p", f"{how} {counts}", class_="note"),
    ]


def _still_part(steps: KeyFrameSteps, origin_us: int) -> list[Html]:
    how = (
        "Each frame is compared with the mean of the frame before and the frame after, only where nothing moves (where these "
        f"two are equal within {STILL_LEVELS:.0f} of 255 grey levels). In a steady video both numbers are small and similar "
        "for both kinds of frames. If key frames jump in brightness, the video flickers at each of them; if they differ more "
        "pixel by pixel, they look grainier or sharper than the frames between, which is visible as a pulse. Only frames "
        f"between two interpolated frames are compared. Jumps below about {SEEN_LEVELS:.0f} level are hard to see."
    )
    rows = [
        _steps_row("Key frames, as recorded", steps.key),
        _steps_row("Interpolated frames", steps.made),
    ]
    head = (
        "In grey levels of 255",
        *("Jump in brightness: half are below", "19 of 20 are below"),
        *("Difference pixel by pixel: half are below", "19 of 20 are below"),
        *("Frames compared", "Skipped: too much motion"),
    )
    return [
        element("p", element("strong", "Where nothing moves. "), verdict(steps, origin_us)),
        table(head, [rows], None, "compact wrapped"),
        element("p", how, class_="note"),
    ]


def moving_verdict(parts: MovingParts, origin_us: int) -> str:
    """What the numbers of moving parts mean, in a few sentences."""
    loss, jump = parts.sharpness_loss, parts.brightness
    if loss is None or jump is None:
        return "This cannot be measured for this video: no window has enough motion between its two key frames."
    found = [*_loss_words(loss, parts.num_spans), *_jump_words(jump)]
    if found:
        is_usual = _stands_out(loss, SEEN_LOSS) or _stands_out(jump, SEEN_LEVELS)
        found = [("Yes: " if is_usual else "A few do: ") + found[0], *(one[0].upper() + one[1:] for one in found[1:])]
    else:
        found = [
            f"No: moving parts are about as sharp and as bright in interpolated frames as in key frames{_over(parts)}."
        ]
    if parts.worst_us is not None and parts.worst_loss >= SEEN_LOSS:
        where = _seconds(parts.worst_us, origin_us)
        found.append(f"The largest loss of sharpness, {_percent(parts.worst_loss)}, is after the key frame at {where}.")
    if 2 * parts.num_unknown_noise > parts.num_spans:
        found.append("Hardly anything stands still, so key-frame noise could not be separated from sharpness.")
    return " ".join(found)


def _over(parts: MovingParts) -> str:
    loss = parts.sharpness_loss.median if parts.sharpness_loss is not None else 0.0
    return f" ({_percent(abs(loss))} {'less' if loss >= 0 else 'more'} sharp, median over {_windows(parts.num_spans)})"


def _loss_words(loss: Spread, num_spans: int) -> list[str]:
    if _stands_out(loss, SEEN_LOSS):
        way = "less" if loss.median > 0 else "more"
        return [
            f"moving parts are {_percent(abs(loss.median))} {way} sharp in interpolated frames than in key frames "
            f"(median over {_windows(num_spans)}), so they are likely to pulse at the key frames."
        ]
    if loss.middle[1] >= _RARE * SEEN_LOSS:
        return [f"in some windows, interpolated frames are {_percent(loss.middle[1])} less sharp than key frames."]
    return []


def _jump_words(jump: Spread) -> list[str]:
    if _stands_out(jump, SEEN_LEVELS):
        way = "brighter" if jump.median > 0 else "darker"
        return [
            f"moving parts are {number(abs(jump.median), 1)} levels {way} in key frames than in interpolated frames."
        ]
    largest = max(jump.middle, key=abs)
    if abs(largest) >= _RARE * SEEN_LEVELS:
        way = "brighter" if largest > 0 else "darker"
        return [f"in some windows, moving parts are {number(abs(largest), 1)} levels {way} in key frames."]
    return []


def _stands_out(spread: Spread, seen: float) -> bool:
    return abs(spread.median) >= seen


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"


def _windows(count: int) -> str:
    return f"{count} window{'' if count == 1 else 's'}"


def _spread_row(name: str, spread: Spread | None, scale: float, digits: int) -> Html:
    values = (None,) * 3 if spread is None else (spread.median, *spread.middle)
    cells = (number(None if value is None else scale * value, digits) for value in values)
    return element("tr", element("th", name, scope="row"), *(element("td", cell, class_="value") for cell in cells))


def verdict(steps: KeyFrameSteps, origin_us: int) -> str:
    """What the numbers mean, in a sentence or two."""
    if steps.key.brightness is None or steps.worst_us is None:
        why = "too little stands still" if steps.key.num_moving else "none lies between two interpolated frames"
        return f"This cannot be measured for this video's key frames: {why}."
    typical, high = steps.key.brightness
    usual = steps.made.brightness[0] if steps.made.brightness is not None else 0.0
    if typical - usual >= SEEN_LEVELS:
        found = "Yes: key frames jump in brightness, so the video is likely to flicker at them."
    elif high - usual >= SEEN_LEVELS:
        found = "A few do: some key frames jump in brightness enough to be seen."
    else:
        found = "No: key frames are about as bright as the frames around them."
    return " ".join([found, *_worst(steps, origin_us), *_grain(steps)])


def _worst(steps: KeyFrameSteps, origin_us: int) -> list[str]:
    if steps.worst_us is None or abs(steps.worst) < _LEAST_TOLD:
        return []
    way = "brighter" if steps.worst > 0 else "darker"
    return [
        f"The largest jump is at {_seconds(steps.worst_us, origin_us)}: {number(abs(steps.worst), 2)} levels {way}."
    ]


def _grain(steps: KeyFrameSteps) -> list[str]:
    if (
        steps.key.texture is None
        or steps.made.texture is None
        or steps.key.texture[0] - steps.made.texture[0] < SEEN_LEVELS
    ):
        return []
    return [
        "Pixel by pixel they differ more than interpolated frames do: they may look grainier or sharper, which is visible "
        "as a pulse."
    ]


def _steps_row(name: str, summary: StepSummary) -> Html:
    pairs = [(None, None) if pair is None else pair for pair in (summary.brightness, summary.texture)]
    values = [number(value, 2) for pair in pairs for value in pair]
    values += [str(summary.num_frames), str(summary.num_moving)]
    return element("tr", element("th", name, scope="row"), *(element("td", value, class_="value") for value in values))


def _seconds(time_us: int, origin_us: int) -> str:
    return f"{number((time_us - origin_us) / 1e6, 3)} s"


def _ordinal(count: int) -> str:
    ending = "th" if 10 <= count % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"
