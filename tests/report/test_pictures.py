from __future__ import annotations

import base64
import io
import itertools

import numpy as np
from PIL import Image

from evfi.report.pictures import LARGEST_EDGE_PX, busiest_row, data_uri, picture_figure, shown_size
from html_page import parse_page


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_pictures_in_the_page_are_small() -> None:
    picture = np.zeros((500, 1000, 3), np.uint8)
    uri = data_uri(picture)
    assert uri.startswith("data:image/webp;base64,") and uri == data_uri(picture)
    assert decoded(uri).size == shown_size(picture) == (LARGEST_EDGE_PX, LARGEST_EDGE_PX // 2)
    assert decoded(data_uri(picture, 800)).size == shown_size(picture, 800) == (800, 400)
    assert shown_size(np.zeros((20, 30, 3), np.uint8)) == (30, 20)


def test_figure_says_its_size_and_escapes_its_words() -> None:
    figure = parse_page(picture_figure(np.zeros((30, 40, 3), np.uint8), '<"key" frame>'))
    (image,) = figure.all("img")
    assert (image.attributes["width"], image.attributes["height"]) == ("40", "30")
    assert image.attributes["alt"] == figure.all("figcaption")[0].text == '<"key" frame>'


def test_busiest_row_is_the_one_that_moves() -> None:
    frames = np.zeros((7, 8, 10, 3), np.uint8)
    for time in range(7):
        frames[time, 5, time] = 255
    assert busiest_row(itertools.pairwise(frames)) == 5


def test_busiest_row_prefers_a_band_to_a_single_row_where_smoothed() -> None:
    before, after = np.zeros((2, 40, 10, 3), np.uint8)
    after[3] = 100
    after[20:27] = 60
    assert busiest_row([(before, after)]) == 3
    assert busiest_row([(before, after)], smoothing_rows=7) == 23
    after[:] = 0
    after[0] = 9
    assert busiest_row([(before, after)], smoothing_rows=7) <= 3
