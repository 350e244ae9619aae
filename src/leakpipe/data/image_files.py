"""Reading one image file: PNG, JPEG, TIFF or DICOM to a square array in [0, 1].

An image that is not square loses its longer sides equally (a centred crop, as MedMNIST and TorchXRayVision do), so that
anatomy keeps its proportions; it is then resized by Pillow's bilinear filter, which smooths before it shrinks.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError

SAME_GRAY = 2 / 255  # channels that JPEG stored of one gray image may differ by so much


def read_image(path: Path, *, size: int, color: bool) -> np.ndarray:
    """Read, crop and resize one image.

    Gray images become three equal channels where `color` asks for them.

    Returns:
        float32 of shape (1 or 3, size, size) in [0, 1].

    Raises:
        LeakpipeError: The file cannot be read, is not one image, is suspiciously large, or is in colour where
            gray is asked for.
    """
    from leakpipe.data.dicom_files import read_dicom

    pixels = read_dicom(path) if path.suffix.lower() == ".dcm" else _read_with_pillow(path)
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
    return fit_square(pixels, size)


def fit_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Crop the centre and resize it: (height, width) or (height, width, channels) to (channels, size, size)."""
    channels = np.moveaxis(pixels, 2, 0) if pixels.ndim == 3 else pixels[None]
    return np.stack([_resize(_crop(channel), size) for channel in channels])


def _crop(channel: np.ndarray) -> np.ndarray:
    side = min(channel.shape)
    top, left = ((length - side) // 2 for length in channel.shape)
    return channel[top : top + side, left : left + side]


def _resize(channel: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(channel, dtype=np.float32))
    resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return resized.clip(0, 1)


def _read_with_pillow(path: Path) -> np.ndarray:
    """Decode by Pillow: (height, width) or (height, width, 3), float32 in [0, 1]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
                return _to_array(path, image)
    except LeakpipeError:
        raise
    except UnidentifiedImageError as error:
        raise LeakpipeError(f"{path}: is not a PNG, JPEG or TIFF image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LeakpipeError(f"{path}: is refused as a decompression bomb: {error}") from error
    except Exception as error:  # decoders raise types of their own for what is damaged
        raise LeakpipeError(f"{path}: cannot be read as an image: {error}") from error


def _to_array(path: Path, image: Any) -> np.ndarray:
    from PIL import ImageOps

    if getattr(image, "n_frames", 1) > 1:
        raise LeakpipeError(f"{path}: holds {image.n_frames} images, expected one")
    image_format = image.format  # what follows loses it
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise LeakpipeError(f"{path}: has transparent pixels, which are no pixels of an image")
    if image.mode not in ("1", "L", "RGB", "I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if pixels.dtype.kind == "u" or (image_format == "PNG" and image.mode == "I"):  # 16 bits
        return pixels.astype(np.float32) / np.float32(65535)
    raise LeakpipeError(f"{path}: has pixels of type {pixels.dtype.name}, expected 8 or 16 bits without a sign")
