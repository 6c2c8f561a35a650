"""What is stored, and that the short ways to it end where the long one does: in the same bytes, or the same reason."""

import hashlib
import io
import struct
import threading
import time
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageOps

from zsbir.data import preparing
from zsbir.data.images import BLANK_SPREAD, BadImage, decode, encode_photo, encode_sketch
from zsbir.data.preparing import MAX_FILE_BYTES, Form, Packed, Refused, prepare, prepare_all, stored_form
from zsbir.toys.draw import draw

PNG = encode_sketch(draw("cup", "sketch", np.random.default_rng(0), 32))
NOWHERE = None
"""The place of sources that bring their own bytes."""


@dataclass(frozen=True)
class Fixed:
    """A source with given bytes."""

    path: str
    data: bytes = PNG
    domain: str = "sketch"
    class_name: str = "cup"
    split_hint: str | None = None

    def read(self, folder):
        return self.data

    def stamp(self, tree):
        return (len(self.data),)


def slow_form(data, short_side_px, domain):
    """`stored_form` the long way: all pixels, a histogram, and the header once more. The reason where it is refused."""
    try:
        image = decode(data)
    except BadImage as error:
        return str(error)
    if all(np.ptp(np.flatnonzero(band)) <= BLANK_SPREAD for band in np.reshape(image.histogram(), (3, 256))):
        return "blank: all one colour"
    short, size = min(image.size), image.size
    if short_side_px and short > short_side_px:
        size = round(image.width * short_side_px / short), round(image.height * short_side_px / short)
    header = Image.open(io.BytesIO(data))
    plain = header.format in ("JPEG", "PNG") and header.mode in ("L", "RGB") and not header.has_transparency_data
    deep = header.format == "PNG" and data[24] != 8
    if size == image.size and plain and not deep and header.getexif().get(0x0112, 1) in (0, 1):
        return data, *size
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return (encode_photo if domain == "photo" else encode_sketch)(image), *size


def form(data, short_side_px, domain):
    try:
        return tuple(stored_form(data, short_side_px, domain)[:3])
    except BadImage as error:
        return str(error)


def is_same(data, short_side_px=256, domain="photo"):
    """Whether both ways agree; not with `==` in the test itself, which would print megabytes."""
    return form(data, short_side_px, domain) == slow_form(data, short_side_px, domain)


def picture(width=60, height=40):
    """Red to the right, green to the bottom: no two corners alike."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 128 + 0 * x], axis=-1).astype(np.uint8))


def photo(width=150, height=120, seed=0):
    """Patches of colour, and so much noise that the file has some length."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(patches).astype(int) + rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def sketch(width=90, height=70):
    pixels = np.full((height, width), 255, np.uint8)
    pixels[height // 4 : -height // 4, width // 2 : width // 2 + 2] = 0
    return Image.fromarray(pixels)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation):
    values = Image.Exif()
    values[0x0112] = orientation
    return values


def png(*chunks):
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def deep_png():
    """16 bit a channel: a red corner, the rest black."""
    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 257, 0) * 2 + bytes(12) for _ in range(4))
    return png(b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(rows), b"IEND")


JPEGS = {
    "4:4:4": encoded(photo(), "JPEG", subsampling=0, quality=90),
    "4:2:2": encoded(photo(), "JPEG", subsampling=1),
    "4:2:0": encoded(photo(), "JPEG", subsampling=2),
    "progressive": encoded(photo(), "JPEG", progressive=True),
    "with restarts": encoded(photo(), "JPEG", restart_marker_blocks=3),
    "stored as RGB": encoded(photo(), "JPEG", keep_rgb=True),
    "upright by its exif": encoded(photo(), "JPEG", exif=exif(1)),
    "turned by its exif": encoded(photo(), "JPEG", exif=exif(6)),
    "turned by its xmp": encoded(photo(), "JPEG", xmp=b'<x tiff:Orientation="3"/>'),
    "grey": encoded(photo().convert("L"), "JPEG"),
    "cmyk": encoded(photo().convert("CMYK"), "JPEG"),
    "tiny": encoded(photo(5, 3), "JPEG"),
    "too large": encoded(photo(400, 300), "JPEG"),
}
OTHERS = {
    "png": encoded(photo(40, 30)),
    "grey png": encoded(sketch()),
    "palette": encoded(photo(40, 30).convert("P")),
    "transparent": encoded(photo(40, 30).convert("RGBA")),
    "16 bit grey": encoded(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70)),
    "16 bit colour": deep_png(),
    "turned png": encoded(photo(40, 30), exif=exif(8)),
    "large grey png": encoded(sketch(500, 300)),
    **{name: encoded(photo(40, 30), name) for name in ("WEBP", "BMP", "GIF", "TIFF")},
}


def purple():
    """Many a brightness with a Cb and Cr that make one and the same colour of them all."""
    ramp = Image.fromarray(np.tile(np.linspace(85, 125, 64).astype(np.uint8), (48, 1)))
    return encoded(Image.merge("YCbCr", [ramp, *[Image.new("L", ramp.size, 255)] * 2]), "JPEG", subsampling=0)


def overexposed():
    """Bright patches, and their mean made eight times what it was: all is far beyond white."""
    patches = Image.fromarray(np.random.default_rng(0).integers(200, 256, (6, 8), np.uint8)).resize(
        (64, 48), Image.Resampling.NEAREST
    )
    data = encoded(patches.convert("RGB"), "JPEG")
    start = data.find(b"\xff\xdb") + 5
    return data[:start] + bytes([8 * data[start]]) + data[start + 1 :]


BLANKS = {
    "white": encoded(Image.new("RGB", (64, 48), "white"), "JPEG"),
    "nearly one colour": encoded(Image.fromarray(np.indices((48, 64)).sum(0).astype(np.uint8) % 2 * 2 + 90).convert("RGB"), "JPEG"),
    "grey": encoded(Image.new("L", (64, 48), 9), "JPEG"),
    "black png": encoded(Image.new("L", (64, 48), 0)),
    "purple": purple(),
    "overexposed": overexposed(),
}


@pytest.mark.parametrize("short_side_px", [0, 100, 256])
@pytest.mark.parametrize("domain", ["photo", "sketch"])
@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
def test_stored_are_the_bytes_of_the_long_way(name, domain, short_side_px):
    assert is_same((JPEGS | OTHERS)[name], short_side_px, domain)


@pytest.mark.parametrize("name", BLANKS)
def test_blank_is_blank_whichever_way(name):
    assert slow_form(BLANKS[name], 256, "photo") == form(BLANKS[name], 256, "photo") == "blank: all one colour"


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_cut_anywhere_gets_the_verdict_of_the_full_decode(name):
    data = JPEGS[name]
    cuts = {*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 12, len(data))}
    assert all(is_same(data[:cut]) for cut in cuts)


def damaged(data, rng):
    """The bytes with one of the things that happen to files, and a few that do not."""
    spoilt, position = bytearray(data), int(rng.integers(2, len(data)))
    noise = rng.bytes(int(rng.integers(1, 60)))
    match rng.integers(8):
        case 0:
            spoilt[position] ^= 1 << rng.integers(8)
        case 1:
            spoilt[position : position + len(noise)] = noise
        case 2:
            spoilt[position:position] = noise
        case 3:
            del spoilt[position : position + len(noise)]
        case 4:
            spoilt[position:position] = b"\xff" + noise[:2]
        case 5:
            for byte in rng.integers(2, min(len(data), 700), 3):
                spoilt[byte] = rng.integers(256)
        case 6:
            start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"), 0)
            spoilt[min(start + int(rng.integers(4, 19)), len(data) - 1)] = rng.choice([0x11, 0x12, 0x21, 0x22, 0x31, 0x41, 1, 3, 9])
        case _:
            start = max(data.find(b"\xff\xdb"), 0) + 5
            spoilt[start : start + 64] = bytes(rng.choice([1, 60, 255]) for _ in range(64))
    return bytes(spoilt)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
def test_a_damaged_file_gets_the_verdict_of_the_full_decode(name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    files = [damaged((JPEGS | OTHERS)[name], rng) for _ in range(60)]
    assert all(is_same(file, short, domain) for file in files for short, domain in ((256, "photo"), (0, "sketch")))


def test_colours_that_no_decoder_can_lay_over_the_brightness_are_refused():
    data = bytearray(JPEGS["4:4:4"])
    start = data.find(b"\xff\xc0")
    data[start + 11], data[start + 14] = 0x31, 0x21  # three columns of brightness to two of Cb
    assert (
        slow_form(bytes(data), 256, "photo")
        == form(bytes(data), 256, "photo")
        == "damaged: broken data stream when reading image file"
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", BLANKS)
def test_damage_makes_a_blank_sheet_no_more_than_it_is(name):
    """Wild coefficients overflow in a decode at a smaller scale, which then shows a picture where the full one is white."""
    rng = np.random.default_rng(0)
    files = [damaged(damaged(BLANKS[name], rng), rng) for _ in range(200)]
    assert all(is_same(file) for file in files)


def test_a_usual_photo_is_not_decoded_in_full(monkeypatch):
    monkeypatch.setattr(preparing, "finish", None)
    for name in ("4:4:4", "4:2:2", "4:2:0", "progressive", "with restarts", "upright by its exif"):
        assert stored_form(JPEGS[name], 256, "photo")[:3] == (JPEGS[name], 150, 120)


def in_windows(values, pick, axis):
    """The least or most of each BLANK_SPREAD + 1 values in a row."""
    values = np.moveaxis(values, axis, 0)
    size = len(values) - BLANK_SPREAD
    picked = values[:size].copy()
    for shift in range(1, BLANK_SPREAD + 1):
        pick(picked, values[shift : shift + size], out=picked)
    return np.moveaxis(picked, 0, axis)


def test_no_cb_and_cr_hide_the_differences_in_brightness_that_are_taken_as_proof():
    """All 2^24 of Y, Cb, Cr as RGB: how far apart the Y of colours are that lie in one cube of BLANK_SPREAD."""
    least, most = np.full((256, 256, 256), 255, np.uint8), np.zeros((256, 256, 256), np.uint8)
    cb, cr = np.indices((256, 256), np.uint8)
    for y in range(256):
        colours = Image.fromarray(np.stack([np.full_like(cb, y), cb, cr], axis=-1), "YCbCr").convert("RGB")
        red, green, blue = np.moveaxis(np.asarray(colours), -1, 0)
        least[red, green, blue] = np.minimum(least[red, green, blue], y)
        most[red, green, blue] = y
    for axis in range(3):
        least, most = in_windows(least, np.minimum, axis), in_windows(most, np.maximum, axis)
    apart = int((most.astype(int) - least).max())
    assert apart == 83
    assert apart + 5 < preparing._BRIGHTNESS_PROOF


@pytest.mark.realdata
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning")
@pytest.mark.parametrize("domain", ["photo", "sketch"])
def test_real_images_whole_and_damaged_get_the_verdict_and_bytes_of_the_full_decode(shared, domain):
    rng = np.random.default_rng(0)
    files = sorted((shared / "data" / "caltech_qd60" / domain).rglob("*.*"))[::40]
    for file in files:
        data = file.read_bytes()
        assert stored_form(data, 256, domain)[0] is data, file.name
        assert is_same(data, 64, domain), file.name
        assert is_same(data[: rng.integers(len(data))], 256, domain), file.name
        assert all(is_same(damaged(data, rng), 256, domain) for _ in range(3)), file.name


def test_what_is_packed_is_told_with_its_size_and_checksum():
    packed = prepare(Fixed("one", JPEGS["too large"], domain="photo"), NOWHERE, Form(100))
    assert (packed.width, packed.height) == (133, 100) == decode(packed.data).size
    assert packed.sha256 == hashlib.sha256(packed.data).hexdigest()


@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
def test_any_reader_sees_in_what_is_stored_what_this_one_saw(name):
    data = (JPEGS | OTHERS)[name]
    for domain, form in (("photo", "JPEG"), ("sketch", "PNG")):
        stored, width, height, _ = stored_form(data, 0, domain)
        plain = Image.open(io.BytesIO(stored))
        assert plain.size == (width, height)
        assert plain.mode in ("L", "RGB")
        assert stored is data or plain.format == form
        assert np.abs(np.asarray(plain.convert("RGB"), float) - np.asarray(decode(data))).mean() < 5


@pytest.mark.parametrize("domain", ["photo", "sketch"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_plain_files_are_stored_as_they_are(form, domain):
    data = encoded(picture(), form)
    assert stored_form(data, 256, domain)[:3] == (data, 60, 40)
    assert stored_form(data, 0, domain)[0] is data


def test_large_images_are_reduced_to_the_short_side():
    stored, width, height, _ = stored_form(encoded(picture(300, 150), "JPEG"), 75, "photo")
    assert (width, height) == (150, 75) == decode(stored).size
    assert Image.open(io.BytesIO(stored)).format == "JPEG"


def test_a_16_bit_colour_png_is_stored_anew():
    data = deep_png()
    stored, *_ = stored_form(data, 0, "sketch")
    assert stored != data
    assert np.asarray(decode(stored))[0, 0].tolist() == [255, 1, 0]


def test_images_come_in_order_whichever_thread_is_first():
    sources = [Fixed(f"{n}", PNG if n % 3 else b"") for n in range(61)]
    results = list(prepare_all(sources, NOWHERE, Form(256), workers=4))
    assert [isinstance(result, Refused) for result in results] == [n % 3 == 0 for n in range(61)]


def test_no_sources_give_no_results():
    assert list(prepare_all([], NOWHERE, Form(256), workers=2)) == []


def test_only_a_few_images_wait_in_memory_and_none_is_read_after_the_reader_stops():
    read = []

    @dataclass(frozen=True)
    class Counted(Fixed):
        def read(self, folder):
            time.sleep(0.005)
            read.append(self.path)
            return self.data

    results = prepare_all([Counted(str(number)) for number in range(500)], NOWHERE, Form(256), workers=2)
    assert isinstance(next(results), Packed)
    before = len(read)
    results.close()
    after = len(read)
    assert before <= 2 * 16
    assert after <= before + 4, "what was in hand, not the rest of the run"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ingest")]
    time.sleep(0.05)
    assert len(read) == after


def test_an_error_that_is_no_bad_image_reaches_the_reader():
    class Broken(Fixed):
        def read(self, folder):
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        list(prepare_all([Fixed("a"), Broken("b")], NOWHERE, Form(256), workers=2))


def test_a_file_that_is_gone_is_refused_with_the_reason():
    class Gone(Fixed):
        def read(self, folder):
            raise FileNotFoundError(2, "No such file or directory")

    assert prepare(Gone("a"), NOWHERE, Form(256)) == Refused("cannot be read: No such file or directory")


def test_a_file_beyond_the_cap_is_refused_before_it_is_decoded():
    assert "more than the" in prepare(Fixed("big", bytes(MAX_FILE_BYTES + 1)), NOWHERE, Form(256)).reason


def test_a_png_with_odd_metadata_is_stored_as_a_png_that_any_reader_opens():
    data = encoded(sketch())
    profile = b"iCCP" + b"name\0\0" + zlib.compress(bytes(2_000_000))
    odd = data[:33] + struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile)) + data[33:]
    assert stored_form(odd, 256, "sketch")[:3] == (data, 90, 70)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_sketch_that_is_light_on_dark_is_told_and_stored_dark_on_light_when_asked(form, mode):
    light = encoded(ImageOps.invert(sketch(256, 200)).convert(mode), form)
    assert stored_form(light, 256, "sketch") == (light, 256, 200, True)
    turned = stored_form(light, 256, "sketch", invert=True)
    assert turned.inverted
    assert np.median(np.asarray(Image.open(io.BytesIO(turned.data)))) > 240
    dark = encoded(sketch(256, 200).convert(mode), form)
    assert stored_form(dark, 256, "sketch", invert=True) == (dark, 256, 200, False)
    assert not stored_form(light, 256, "photo", invert=True).inverted, "a photo may be dark"
