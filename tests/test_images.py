"""The one reader of images: the same pixels as detectron2's, and what it refuses."""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import EpsImagePlugin, Image

from sparsedet.errors import InputError
from sparsedet.images import MAX_PIXELS, read_image

ORIENTATION = 274


def saved(path, image, **options):
    image.save(path, **options)
    return str(path)


def refuses(path, message):
    with pytest.raises(InputError, match=message) as caught:
        read_image(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
@pytest.mark.parametrize(
    "mode, suffix",
    [(mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    + [(mode, "jpg") for mode in ("L", "RGB", "CMYK")]
    + [("RGB", "bmp"), ("P", "gif"), ("RGB", "ppm"), ("L", "pgm"), ("RGB", "webp"), ("RGB", "tif")],
)
def test_eight_bits_are_as_detectron2_reads_them(tmp_path, picture, mode, suffix, channels):
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(picture(37, 50)).convert(mode))
    np.testing.assert_array_equal(read_image(path, channels), detectron2_read_image(path, channels))


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_detectron2_turns_them(
    tmp_path, picture, suffix, channels, orientation
):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(picture(37, 50)), exif=exif)
    np.testing.assert_array_equal(read_image(path, channels), detectron2_read_image(path, channels))


@pytest.mark.filterwarnings("ignore:Palette images")
def test_a_palette_with_a_transparent_colour(tmp_path, picture):
    image = Image.fromarray(picture(37, 50)).convert("P")
    path = saved(tmp_path / "a.png", image, transparency=bytes(range(256)))
    np.testing.assert_array_equal(read_image(path), detectron2_read_image(path, "BGR"))


def test_a_large_picture_is_whole(tmp_path):
    """Its strips fit together."""
    pixels = np.random.default_rng(0).integers(0, 256, (2100, 1000, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels), compress_level=1)
    np.testing.assert_array_equal(read_image(path, "RGB"), pixels)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_do_not_matter(tmp_path, picture):
    image = Image.fromarray(picture(37, 50))
    for exif in (b"Exif\0\0nothing of the kind", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        path = saved(tmp_path / "a.jpg", image, exif=exif)
        np.testing.assert_array_equal(read_image(path), detectron2_read_image(path, "BGR"))


def png_files(picture):
    """Colours, a palette, one bit and sixteen."""
    image = Image.fromarray(picture(24, 32))
    deep = Image.fromarray(picture(24, 32)[:, :, 0].astype(np.uint16) * 257)
    for candidate in (image, image.convert("P"), image.convert("1"), deep):
        buffer = io.BytesIO()
        candidate.save(buffer, "png", dpi=(72, 72))
        yield buffer.getvalue()


def test_a_png_with_a_flipped_bit_is_refused_or_unharmed(tmp_path, picture):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    refused = 0
    for data in png_files(picture):
        path.write_bytes(data)
        expected = read_image(str(path))
        for place in rng.choice(8 * len(data), 150, replace=False):
            damaged = bytearray(data)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            try:
                np.testing.assert_array_equal(read_image(str(path)), expected)
            except InputError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused > 590


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm"])
def test_truncated_files_are_refused(tmp_path, picture, suffix):
    path = tmp_path / f"a.{suffix}"
    saved(path, Image.fromarray(picture(60, 80)))
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        refuses(path, "truncated|cannot be read|not an image")


def test_only_the_formats_that_are_listed_are_opened(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: called.append(args))
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    image = Image.new("RGB", (9, 9))
    for kind in ("TGA", "ICO", "PCX", "DDS"):
        image.save(tmp_path / f"{kind}.png", kind)
    for path in tmp_path.iterdir():
        refuses(path, "not an image, or of an unknown kind")
    assert not called


MEASURE = """
import json, resource, sys
from sparsedet.errors import InputError
from sparsedet.images import read_image
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, messages = peak(), []
for path in sys.argv[1:]:
    try:
        read_image(path)
    except InputError as error:
        messages.append(str(error))
print(json.dumps([messages, peak() - before]))
"""


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # to write them
    side = int(MAX_PIXELS**0.5) + 1
    paths = [
        saved(tmp_path / "a.png", Image.new("1", (side, side))),
        saved(tmp_path / "large.png", Image.new("1", (2 * side, 2 * side))),
        saved(tmp_path / "wide.png", Image.new("1", (MAX_PIXELS // 1000, 1001))),
        saved(tmp_path / "a.tif", Image.new("1", (side, side)), compression="group4"),
        str(tmp_path / "a.gif"),
        str(tmp_path / "a.webp"),
        str(tmp_path / "a.pgm"),
    ]
    (tmp_path / "a.gif").write_bytes(
        b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
    )
    (tmp_path / "a.webp").write_bytes(
        b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\xff\xff\xff\x0f\0\x07\x10\x11\x11\x88\x88\0"
    )
    (tmp_path / "a.pgm").write_bytes(b"P5 100000 100000 255\n" + bytes(1000))
    output = subprocess.check_output([sys.executable, "-c", MEASURE, *paths], text=True)
    messages, megabytes = json.loads(output)
    assert [m.split(":")[0] for m in messages] == paths
    if int(PIL.__version__.split(".")[0]) < 13:  # the decoder, which refuses it, is asked before
        assert "could not create decoder" in messages.pop(paths.index(str(tmp_path / "a.webp")))
    assert all("more than 64 megapixels" in message for message in messages)
    assert megabytes < 50


def test_the_tile_of_a_tiff_counts(tmp_path):
    """Sixteen pixels, in a tile that would need a gigabyte."""
    side = 32768
    tags = {256: 4, 257: 4, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 16) + zlib.compress(b"")
    (tmp_path / "a.tif").write_bytes(
        header + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    )
    refuses(tmp_path / "a.tif", "more than 64 megapixels")
