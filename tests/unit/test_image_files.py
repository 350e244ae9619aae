"""Image files to arrays: values, crop and size, and what is refused."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from leakpipe.data.image_files import fit_square, read_image
from leakpipe.errors import LeakpipeError
from tests.unit.data_files import noise, write_image


def said(path: Path, *, color: bool = False) -> str:
    with pytest.raises(LeakpipeError) as raised:
        read_image(path, size=16, color=color)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(("height", "width", "size"), [(40, 40, 16), (33, 33, 20), (17, 17, 32), (64, 64, 64)])
def test_resizing_is_torchs_antialiased_bilinear(height: int, width: int, size: int) -> None:
    pixels = np.random.default_rng(1).random((height, width)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None, None], (size, size), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(fit_square(pixels, size), expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(("shape", "kept"), [((16, 30), np.s_[:, 7:23]), ((21, 16), np.s_[2:18, :])])
def test_the_centre_of_a_longer_side_is_kept(shape: tuple[int, int], kept: tuple[slice, slice], tmp_path: Path) -> None:
    pixels = noise(*shape)
    read = read_image(write_image(tmp_path / "x.png", pixels), size=16, color=False)
    np.testing.assert_array_equal(read[0], pixels[kept].astype(np.float32) / np.float32(255))


def test_eight_and_sixteen_bits_use_the_whole_range(tmp_path: Path) -> None:
    eight, sixteen = noise(16, 16), np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    sixteen[0, :2] = 0, 65535
    for suffix in ("png", "tif"):
        np.testing.assert_allclose(
            read_image(write_image(tmp_path / f"8.{suffix}", eight), size=16, color=False)[0], eight / 255, atol=1e-7
        )
        np.testing.assert_allclose(
            read_image(write_image(tmp_path / f"16.{suffix}", sixteen), size=16, color=False)[0],
            sixteen / 65535,
            atol=1e-7,
        )


def test_black_and_white_palette_and_opaque_alpha(tmp_path: Path) -> None:
    bits = noise(16, 16) > 127
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "1.png", bits), size=16, color=False)[0], bits)
    gray = noise(16, 16)
    Image.fromarray(gray).convert("P").save(tmp_path / "p.png")
    Image.fromarray(gray).convert("LA").save(tmp_path / "la.png")
    for name in ("p", "la"):
        np.testing.assert_array_equal(
            read_image(tmp_path / f"{name}.png", size=16, color=False)[0], gray.astype(np.float32) / np.float32(255)
        )


def test_gray_that_is_stored_as_colour_is_gray(tmp_path: Path) -> None:
    gray = noise(16, 16)
    path = write_image(tmp_path / "x.png", np.stack([gray] * 3, axis=2))
    read = read_image(path, size=16, color=False)
    assert read.shape == (1, 16, 16)
    np.testing.assert_array_equal(read[0], gray.astype(np.float32) / np.float32(255))
    assert read_image(write_image(tmp_path / "x.jpg", np.stack([gray] * 3, axis=2)), size=16, color=False).shape[0] == 1


def test_colour_keeps_its_channels_and_gray_is_repeated(tmp_path: Path) -> None:
    pixels = noise(16, 16, 3)
    read = read_image(write_image(tmp_path / "c.png", pixels), size=16, color=True)
    np.testing.assert_array_equal(read, pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    repeated = read_image(write_image(tmp_path / "g.png", pixels[..., 0]), size=16, color=True)
    np.testing.assert_array_equal(repeated, np.stack([read[0]] * 3))


def test_the_camera_s_orientation_is_undone(tmp_path: Path) -> None:
    pixels = noise(16, 16)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = write_image(tmp_path / "x.png", pixels, exif=exif)
    np.testing.assert_allclose(read_image(path, size=16, color=False)[0], pixels[::-1, ::-1] / 255, atol=1e-7)


def test_colour_among_gray_is_refused(tmp_path: Path) -> None:
    assert said(write_image(tmp_path / "x.png", noise(16, 16, 3))).startswith("is in colour, expected gray")


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    assert "transparent" in said(write_image(tmp_path / "x.png", noise(16, 16, 4)), color=True)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_truncated_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = write_image(tmp_path / f"x.{suffix}", noise(64, 64))
    path.write_bytes(path.read_bytes()[:1200])
    assert said(path).startswith(("cannot be read as an image: ", "is not a PNG, JPEG or TIFF image that Pillow reads"))


def test_another_format_is_refused_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    assert said(path) == "is not a PNG, JPEG or TIFF image that Pillow reads"
    Image.fromarray(noise(16, 16)).save(path, format="GIF")
    assert said(path) == "is not a PNG, JPEG or TIFF image that Pillow reads"


def test_several_images_in_a_file_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(noise(16, 16, seed=seed)) for seed in range(2)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    assert said(tmp_path / "x.tif") == "holds 2 images, expected one"


def test_numbers_without_a_known_range_are_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "x.tif", np.random.default_rng(0).random((16, 16)).astype(np.float32))
    assert said(path).startswith("holds signed numbers or fractions, expected 1 to 16 bits")
    assert said(write_image(tmp_path / "i.tif", np.full((16, 16), 70000, np.int32))).startswith("holds signed numbers")
    tifffile.imwrite(tmp_path / "u.tif", np.full((16, 16), 70000, np.uint32))
    assert said(tmp_path / "u.tif") == "has samples of 32 bits, expected 1 to 16"
    tifffile.imwrite(tmp_path / "s.tif", np.full((16, 16), -3, np.int8))
    assert said(tmp_path / "s.tif").startswith(("holds signed numbers", "is not a PNG"))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_white_as_zero_is_no_negative(
    byteorder: Any, compression: str | None, photometric: str, kind: type[np.unsignedinteger[Any]], tmp_path: Path
) -> None:
    top = np.iinfo(kind).max
    stored = np.random.default_rng(0).integers(0, top, (16, 16), endpoint=True).astype(kind)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, stored, photometric=photometric, compression=compression, byteorder=byteorder)
    if byteorder == ">" and kind is np.uint16 and photometric == "miniswhite":
        assert said(path) == "is not a PNG, JPEG or TIFF image that Pillow reads"
        return
    expected = (top - stored if photometric == "miniswhite" else stored) / top
    np.testing.assert_allclose(read_image(path, size=16, color=False)[0], expected, atol=1e-6)


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_black_and_white_tiff(white_is_zero: bool, tmp_path: Path) -> None:
    bits = noise(16, 16) > 127
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, bits, photometric="miniswhite" if white_is_zero else "minisblack")
    np.testing.assert_array_equal(read_image(path, size=16, color=False)[0], bits ^ white_is_zero)


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_fewer_bits_are_scaled_by_the_file_s_own_depth(bits: int, tmp_path: Path) -> None:
    """Packed by hand as TIFF 6.0 says: the first sample in the highest bits."""
    stored = np.random.default_rng(0).integers(0, 2**bits, (16, 16))
    packed = np.packbits((stored[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)).tobytes()
    tags = [(256, 16), (257, 16), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 16), (279, len(packed))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path = tmp_path / "x.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4))
    np.testing.assert_allclose(read_image(path, size=16, color=False)[0], stored / (2**bits - 1), atol=1e-6)


def png(path: Path, stored: np.ndarray, *, bits: int, kind: int, **chunks: bytes) -> Path:
    """Writes a PNG by hand, as RFC 2083 says: `kind` 0 is gray, 2 RGB, 4 gray and alpha."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = stored.shape[:2]
    samples = stored.reshape(height, -1, 1) >> np.arange(bits)[::-1] & 1
    rows = np.packbits(samples.reshape(height, -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(name.encode(), content) for name, content in chunks.items())
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_level_that_no_pixel_has_changes_nothing(bits: int, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(1, 2**bits, (16, 16))
    stored[0, 0] = 2**bits - 1
    plain = png(tmp_path / "x.png", stored, bits=bits, kind=0)
    np.testing.assert_allclose(read_image(plain, size=16, color=False)[0], stored / (2**bits - 1), atol=1e-6)
    unused = png(tmp_path / "y.png", stored, bits=bits, kind=0, tRNS=struct.pack(">H", 0))
    np.testing.assert_allclose(read_image(unused, size=16, color=False)[0], stored / (2**bits - 1), atol=1e-6)
    used = png(tmp_path / "z.png", stored, bits=bits, kind=0, tRNS=struct.pack(">H", 2**bits - 1))
    assert "transparent" in said(used)


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_in_several_channels_are_not_cut_to_eight(kind: int, channels: int, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 65536, (16, 16, channels))
    path = png(tmp_path / "x.png", stored, bits=16, kind=kind)
    assert said(path, color=True) == "has several channels of 16 bits, expected 8 bits each or one channel"
    if channels == 3:
        tifffile.imwrite(tmp_path / "x.tif", stored.astype(np.uint16), photometric="rgb")
        assert said(tmp_path / "x.tif", color=True).startswith("has several channels of 16 bits")


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns above 89 million pixels, and raises above twice that
def test_a_decompression_bomb_is_refused_before_it_unpacks(side: int, tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    assert said(path).startswith("is refused as a decompression bomb: ")
