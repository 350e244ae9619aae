"""Reads one image file (PNG, JPEG, TIFF or DICOM) to a square array in [0, 1].

An image that is not square is cropped at its centre, as by MedMNIST and TorchXRayVision, so that anatomy keeps its
proportions. It is then resized by Pillow's bilinear filter, which smooths before it shrinks.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.data.dicom_files import HEAD, find_dicom, read_dicom
from leakpipe.errors import LeakpipeError

DICOM_SUFFIXES = (".dcm", ".dicom")
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO = 0
SAME_GRAY = 2 / 255  # by how much the channels of a gray image may differ after JPEG compression


def read_image(path: Path, *, size: int, color: bool) -> np.ndarray:
    """Reads, crops and resizes one image.

    With `color`, gray images become three equal channels.

    Returns:
        float32 of shape (1 or 3, size, size) in [0, 1].

    Raises:
        LeakpipeError: The file cannot be read, holds several images, is suspiciously large, or is in colour without
            `color`.
    """
    pixels, aspect = read_dicom(path) if is_dicom(path) else (_read_with_pillow(path), 1.0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if color:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    elif pixels.shape[2] == 3:
        if np.ptp(pixels, axis=2).max() > SAME_GRAY:
            raise LeakpipeError(
                f"{path}: is in colour, expected gray (or colour channels that are equal); data.channels: color of an "
                "image-folder takes both"
            )
        pixels = pixels[..., :1]
    return fit_square(pixels, size, aspect=aspect)


def is_dicom(path: Path) -> bool:
    """Returns whether a file is DICOM by its name or its first bytes.

    Raises:
        LeakpipeError: The file cannot be opened.
    """
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return find_dicom(stream.read(HEAD)) is not None
    except OSError as error:
        raise LeakpipeError(f"{path}: cannot be read: {error.strerror or error}") from error


def fit_square(pixels: np.ndarray, size: int, *, aspect: float = 1.0) -> np.ndarray:
    """Crops the centre to a square and resizes it.

    Args:
        pixels: Shape (height, width) or (height, width, channels).
        size: Height and width of the result.
        aspect: Height of a pixel divided by its width.

    Returns:
        float32 of shape (channels, size, size) in [0, 1].
    """
    channels = np.moveaxis(pixels, 2, 0) if pixels.ndim == 3 else pixels[None]
    return np.stack([_resize(_crop(channel, aspect), size) for channel in channels])


def _crop(channel: np.ndarray, aspect: float) -> np.ndarray:
    height, width = channel.shape
    side = min(height * aspect, width)  # in widths of a pixel
    rows, columns = max(1, round(side / aspect)), max(1, round(side))
    top, left = (height - rows) // 2, (width - columns) // 2
    return channel[top : top + rows, left : left + columns]


def _resize(channel: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(channel, dtype=np.float32))
    resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return resized.clip(0, 1)


def _read_with_pillow(path: Path) -> np.ndarray:
    """Decodes by Pillow to (height, width) or (height, width, 3), float32 in [0, 1]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
                return _to_array(path, image)
    except LeakpipeError:
        raise
    except UnidentifiedImageError as error:
        raise LeakpipeError(f"{path}: is not a PNG, JPEG or TIFF image that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LeakpipeError(f"{path}: is refused as a decompression bomb: {error}") from error
    except Exception as error:  # decoders raise types of their own for what is damaged
        raise LeakpipeError(f"{path}: cannot be read as an image: {error}") from error


def _to_array(path: Path, image: Any) -> np.ndarray:
    from PIL import ImageOps

    if getattr(image, "n_frames", 1) > 1:
        raise LeakpipeError(f"{path}: holds {image.n_frames} images, expected one")
    bits, inverted = _describe_samples(path, image)
    image = ImageOps.exif_transpose(image)
    if bits > 8 and not image.mode.startswith("I"):  # Pillow would cut them to 8 bits
        raise LeakpipeError(f"{path}: has several channels of {bits} bits, expected 8 bits each or one channel")
    if bits <= 8 and image.mode not in ("1", "L"):
        return _to_color(path, image)
    top = 2 ** max(bits, 8) - 1  # Pillow stretches fewer than 8 bits to 8
    stored = np.asarray(image if bits > 8 else image.convert("L"))
    clear = image.info.get("transparency")
    if clear is not None and (stored == min(clear * top // (2**bits - 1), top)).any():
        raise LeakpipeError(f"{path}: has transparent pixels, expected opaque ones")
    levels = stored.astype(np.float32) / np.float32(top)
    return 1 - levels if inverted else levels


def _describe_samples(path: Path, image: Any) -> tuple[int, bool]:
    """Returns the bits of a sample as the file says, and whether Pillow leaves it to us to invert them."""
    if image.format == "TIFF":
        tags = image.tag_v2
        if set(tags.get(TIFF_SAMPLE_FORMAT, (1,))) != {1}:
            raise LeakpipeError(f"{path}: holds signed numbers or fractions, expected 1 to 16 bits without a sign")
        bits = max(tags.get(TIFF_BITS_PER_SAMPLE, (1,)))
        if bits > 16:
            raise LeakpipeError(f"{path}: has samples of {bits} bits, expected 1 to 16")
        return bits, bits > 8 and tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO
    raw = str(image.tile[0][3] if image.format == "PNG" else "")  # "L", "I;16B", "P;4"
    return (1 if raw == "1" else int(("".join(filter(str.isdigit, raw))) or 8)), False


def _to_color(path: Path, image: Any) -> np.ndarray:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise LeakpipeError(f"{path}: has transparent pixels, expected opaque ones")
    return np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)
