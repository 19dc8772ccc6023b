import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from laqfi.base.pictures import SEAM, png, sheet


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def decoded(payload: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(payload))
    image.load()
    return image


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3]), st.sampled_from([8, 20, 32, 40]))
def test_sheet_shows_each_image_enlarged_and_framed_at_its_place_row_by_row(rows, columns, channels, side):
    images = random_images(rows * columns, channels, side, side)
    picture = sheet(images, columns)
    factor = {8: 4, 20: 2, 32: 1, 40: 1}[side]
    tile = side * factor + 2
    assert picture.shape == (rows * tile, columns * tile, channels)
    for number, image in enumerate(images):
        top, left = number // columns * tile, number % columns * tile
        expected = np.full((tile, tile, channels), SEAM, dtype=np.uint8)
        expected[1:-1, 1:-1] = np.kron(image.transpose(1, 2, 0), np.ones((factor, factor, 1), np.uint8))
        assert np.array_equal(picture[top : top + tile, left : left + tile], expected)


@pytest.mark.parametrize(("count", "rows"), [(4, 1), (7, 1), (8, 2), (11, 2)])
def test_sheet_is_cut_to_whole_rows(count, rows):
    images = random_images(count, 1, 32, 32)
    picture = sheet(images, 4)
    assert picture.shape == (34 * rows, 4 * 34, 1)
    assert np.array_equal(picture, sheet(images[: 4 * rows], 4))


@pytest.mark.parametrize("height", [4, 8])
def test_sheet_keeps_the_proportions_of_images_that_are_not_square(height):
    assert sheet(random_images(2, 1, height, 16), 2).shape == (2 * height + 2, 2 * (2 * 16 + 2), 1)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_holds_the_picture_without_loss(channels, mode):
    picture = random_images(6, 9, channels)
    image = decoded(png(picture))
    assert (image.format, image.mode, image.size) == ("PNG", mode, (9, 6))
    assert np.array_equal(np.asarray(image).reshape(picture.shape), picture)


def test_png_of_a_picture_one_pixel_wide_or_high_is_not_squeezed():
    assert decoded(png(random_images(5, 1, 1))).size == (1, 5)
    assert decoded(png(random_images(1, 5, 1))).size == (5, 1)


def test_png_of_equal_pictures_is_equal_bytes():
    picture = sheet(random_images(8, 3, 8, 8), 4)
    assert png(picture) == png(picture.copy())
