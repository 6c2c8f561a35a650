import io
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import drawing, encoded, picture
from PIL import Image, ImageOps

from zsbir.data.images import (
    BadImage,
    decode,
    encode_photo,
    encode_sketch,
    eval_image,
    is_blank,
    is_inverted,
    without_metadata,
)
from zsbir.toys.draw import TOY_CLASSES, draw


def png_header(width, height):
    return png(b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0"))


def png(*chunks):
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_of_the_whitelist_is_read_as_8_bit_rgb(form):
    image = decode(encoded(picture(), form))
    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert np.abs(np.asarray(image, float) - np.asarray(picture(), float)).mean() < 12


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>', "an SVG drawing"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"plain words", "no readable image header"),
        (png_header(65535, 65535), "bomb"),
        (png_header(10_000, 8_000), "80000000 pixels, more than the 50000000 allowed"),
        (encoded(picture(300, 200), "JPEG")[:2000], "truncated"),
        (encoded(picture(300, 200), "PNG")[:500], "damaged: "),
        (encoded(picture(), "PPM"), "a PPM, PGM or PBM image: convert it"),
    ],
)
def test_what_is_no_image_says_why_in_one_line(data, reason):
    with pytest.raises(BadImage, match=reason) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header_before_any_pixel_is_decoded():
    width = height = 10_000
    rows = zlib.compress((b"\0" + b"\0" * (3 * width)) * height, 9)
    bomb = png(b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + rows, b"IEND")
    assert len(bomb) < 1_000_000
    with pytest.raises(BadImage, match="100000000 pixels"):
        decode(bomb)


def test_the_pixel_cap_is_an_argument():
    with pytest.raises(BadImage, match="2400 pixels, more than the 2399 allowed"):
        decode(encoded(picture()), max_pixels=2399)


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    image = decode(encoded(Image.fromarray(np.tile(ramp, (8, 1)))))
    assert np.abs(np.asarray(image)[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_float_tiff_is_scaled_and_one_without_finite_values_is_bad():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    assert np.asarray(decode(encoded(Image.fromarray(np.tile(ramp, (8, 1))), "TIFF")))[0, -1, 0] == 255
    with pytest.raises(BadImage, match="not finite numbers"):
        decode(encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"))


def test_a_cmyk_jpeg_keeps_its_colours():
    image = decode(encoded(Image.new("RGB", (32, 32), (250, 20, 30)).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(np.asarray(image)[16, 16].astype(int) - [250, 20, 30]).max() < 12


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    image = decode(encoded(picture(60, 40), "JPEG", exif=exif, quality=95))
    assert image.size == (40, 60)
    assert np.asarray(image)[1, -2, 0] < 30, "the picture's upper left corner, without red, comes to the upper right"


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    assert np.asarray(decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_flattened_on_white(form):
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 20))
    pixels = np.asarray(decode(encoded(image, form, **({"lossless": True} if form == "WEBP" else {}))))
    assert pixels[5, 5].tolist() == [0, 0, 0]
    assert pixels[5, 15].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_is_flattened_on_white():
    image = Image.new("P", (20, 20), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 10, 20))
    pixels = np.asarray(decode(encoded(image, "PNG", transparency=0)))
    assert pixels[5, 5].tolist() == [200, 100, 50]
    assert pixels[5, 15].tolist() == [255, 255, 255]


def test_an_image_of_one_colour_is_blank_and_a_single_stroke_is_not():
    assert is_blank(Image.new("RGB", (50, 50), "white"))
    assert is_blank(decode(encoded(Image.new("L", (50, 50), 7), "JPEG")))
    assert not is_blank(decode(encoded(drawing())))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_blank_is_what_differs_by_four_levels_or_less_in_every_channel(mode, data):
    width, height = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    pixels = np.full((height, width, len(mode)), data.draw(st.integers(0, 245)), np.uint8)
    for _ in range(data.draw(st.integers(0, 3))):
        row, column, channel = (data.draw(st.integers(0, size - 1)) for size in pixels.shape)
        pixels[row, column, channel] += data.draw(st.integers(1, 6))
    exact = np.ptp(pixels.reshape(-1, len(mode)).astype(int), axis=0).max() <= 4
    assert is_blank(Image.fromarray(pixels[..., 0] if mode == "L" else pixels)) == exact


def test_the_evaluation_transform_shows_the_whole_image_squeezed_to_a_square():
    pixels = eval_image(encoded(picture(120, 60)), 32)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((3, 32, 32), np.uint8, True)
    expected = np.asarray(picture(120, 60).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(pixels, expected)


def test_a_grey_file_and_its_rgb_twin_are_seen_alike():
    assert np.array_equal(eval_image(encoded(drawing()), 32), eval_image(encoded(drawing().convert("RGB")), 32))


def test_threads_decode_alike():
    data = [encoded(picture(100 + i, 80), "JPEG") for i in range(8)]
    alone = [eval_image(item, 32) for item in data]
    together: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: together.update({i: eval_image(data[i], 32)})) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(together[i], alone[i]) for i in range(8))


def test_a_sketch_without_colour_is_stored_in_grey():
    assert Image.open(io.BytesIO(encode_sketch(drawing().convert("RGB")))).mode == "L"
    assert Image.open(io.BytesIO(encode_sketch(picture()))).mode == "RGB"
    assert Image.open(io.BytesIO(encode_photo(picture()))).format == "JPEG"


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_gives_an_image_or_a_bad_image_and_nothing_else():
    rng = np.random.default_rng(0)
    good = [encoded(picture(), form) for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")]
    reasons = []
    for number in range(400):
        data = bytearray(good[number % len(good)])
        for position in rng.integers(0, min(len(data), 300), 4):
            data[position] = rng.integers(256)
        try:
            decode(bytes(data))
        except BadImage as error:
            reasons.append(str(error))
    assert 50 < len(reasons) < 400
    assert all(reason and "\n" not in reason for reason in reasons)


def chunk(kind, content, *, wrong=False):
    """A chunk of a PNG, with a checksum that may be wrong."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ wrong)


def with_chunk(data, added, *, at_end=False):
    """The bytes of a PNG with one chunk more: behind the header, or before the end."""
    place = len(data) - 12 if at_end else 33
    return data[:place] + added + data[place:]


LARGE = zlib.compress(bytes(2_000_000))
ODD_CHUNKS = {
    "a large colour profile": chunk(b"iCCP", b"name\0\0" + LARGE),
    "a large compressed text": chunk(b"zTXt", b"name\0\0" + LARGE),
    "a large international text": chunk(b"iTXt", b"name\0\1\0\0\0" + LARGE),
    "a wrong checksum of the resolution": chunk(b"pHYs", bytes(9), wrong=True),
    "a wrong checksum of a text": chunk(b"tEXt", b"a\0b", wrong=True),
    "a wrong checksum of EXIF": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0", wrong=True),
    "a colour profile of an unknown compression": chunk(b"iCCP", b"name\0\7abc"),
    "a resolution that is too short": chunk(b"pHYs", b"12"),
}


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", ODD_CHUNKS)
def test_a_png_whose_pixels_are_sound_is_read_whatever_its_metadata_are(name, at_end):
    data = encoded(picture())
    odd = with_chunk(data, ODD_CHUNKS[name], at_end=at_end)
    assert decode(odd).tobytes() == decode(data).tobytes()
    assert without_metadata(odd) == data
    assert without_metadata(data) == data


def test_a_chunk_that_changes_pixels_is_never_left_out():
    image = Image.new("P", (20, 20), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 10, 20))
    data = encoded(image, transparency=0)
    odd = with_chunk(data, ODD_CHUNKS["a large colour profile"])
    assert np.asarray(decode(odd))[5, 15].tolist() == [255, 255, 255], "a transparent colour is still transparent"
    at = data.index(b"tRNS")
    with pytest.raises(BadImage, match=r"damaged PNG file: broken PNG file \(bad header checksum in b'tRNS'\)"):
        decode(data[: at + 4] + b"\x01" + data[at + 5 :])


@pytest.mark.parametrize("kind", [b"PLTE", b"IHDR"])
def test_a_wrong_checksum_of_a_chunk_that_is_needed_is_named(kind):
    data = encoded(picture().convert("P"))
    at = data.index(kind) + 4
    with pytest.raises(BadImage, match=rf"damaged PNG file: broken PNG file \(bad header checksum in b'{kind.decode()}'\)"):
        decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_an_image_whose_orientation_cannot_be_read_is_shown_as_it_is():
    plain = encoded(picture(), "JPEG", quality=95)
    app1 = b"Exif\0\0" + b"MM\0*" + b"\xff" * 20
    odd = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + plain[2:]
    assert decode(odd).tobytes() == decode(plain).tobytes()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a Git LFS pointer instead of the file itself: run git lfs pull",
        ),
        (encoded(picture(), "AVIF"), "an AVIF image: convert it to JPEG or PNG"),
        (b"\xff\xd8\xff\xe0 no more than a beginning", "damaged JPEG file: "),
        (encoded(picture(), "WEBP")[:14], "damaged WEBP file"),
        (encoded(picture(), "TIFF")[:20], "damaged TIFF file"),
        (bytes(5000), "nothing but zeros at its beginning"),
    ],
)
def test_the_reason_names_what_the_file_is_and_what_to_do(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode(data)


def test_a_sketch_is_inverted_when_most_of_it_is_dark():
    assert not is_inverted(drawing())
    assert is_inverted(ImageOps.invert(drawing()))
    assert not is_inverted(Image.effect_noise((64, 64), 40).point(lambda value: min(255, value + 60))), "a grey, shaded sheet"
    assert is_inverted(ImageOps.invert(drawing()).convert("RGB"))


@pytest.mark.parametrize("name", sorted(TOY_CLASSES))
def test_no_toy_sketch_is_taken_for_an_inverted_one_and_every_inverted_one_is(name):
    image = draw(name, "sketch", np.random.default_rng(1), 64)
    assert not is_inverted(image)
    assert is_inverted(ImageOps.invert(image))
