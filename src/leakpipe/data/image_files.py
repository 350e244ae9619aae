"""Reads one image file (PNG, JPEG, TIFF or DICOM) to a square array in [0, 1].

An image that is not square is cropped at its centre, as by MedMNIST and TorchXRayVision, so that anatomy keeps its
proportions. It is then resized by Pillow's bilinear filter, which smooths before it shrinks.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
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
    """Crops the centre and resizes it: (height, width) or (height, width, channels) to (channels, size, size)."""
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
            raise LeakpipeError(f"{path}: has transparent pixels, expected opaque ones")
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


def read_dicom(path: Path) -> np.ndarray:
    """Reads a DICOM image as a viewer would show it (needs the extra `dicom`).

    Gray values are rescaled by slope and intercept (or the modality LUT), then by the first window, or by the smallest
    and largest value if the file has no window. MONOCHROME1 is inverted, so that larger values are brighter.

    Returns:
        (height, width) or (height, width, 3), float32 in [0, 1].

    Raises:
        LeakpipeError: pydicom is missing, or the file cannot be read, holds several images, is larger than Pillow's
            limit, or holds values that are not finite.
    """
    try:
        import pydicom
    except ImportError as error:
        raise LeakpipeError(f"{path}: reading DICOM needs pydicom: pip install 'leakpipe[dicom]'") from error
    try:
        dataset = pydicom.dcmread(path)
        return _to_gray_or_color(path, dataset)
    except LeakpipeError:
        raise
    except Exception as error:  # pydicom and its decoders raise types of their own
        reason = " ".join(str(error).split())
        raise LeakpipeError(f"{path}: cannot be read as a DICOM image: {reason}") from error


def _to_gray_or_color(path: Path, dataset: Any) -> np.ndarray:
    from PIL import Image
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    frames, rows, columns = int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.Rows), int(dataset.Columns)
    if frames != 1:
        raise LeakpipeError(f"{path}: holds {frames} frames, expected one image")
    if Image.MAX_IMAGE_PIXELS and rows * columns > Image.MAX_IMAGE_PIXELS:
        raise LeakpipeError(f"{path}: declares {rows}×{columns} pixels, more than {Image.MAX_IMAGE_PIXELS}")
    interpretation = str(dataset.PhotometricInterpretation)
    if interpretation not in GRAY + COLOR:
        raise LeakpipeError(f"{path}: PhotometricInterpretation {interpretation!r}, expected gray, RGB or YBR")
    if interpretation in COLOR:
        pixels: np.ndarray = pixel_array(dataset)  # YBR to RGB included
        return (pixels / np.float32(2 ** int(dataset.BitsStored) - 1)).astype(np.float32)
    values = np.asarray(apply_modality_lut(pixel_array(dataset), dataset), dtype=np.float64)
    if not np.isfinite(values).all():
        raise LeakpipeError(f"{path}: holds values that are not finite (NaN or infinity)")
    levels = _apply_window(path, dataset, values)
    return (1 - levels if interpretation == "MONOCHROME1" else levels).astype(np.float32)


def _apply_window(path: Path, dataset: Any, values: np.ndarray) -> np.ndarray:
    """Maps values to [0, 1] by the first window of the file, else by their range (DICOM PS3.3, C.11.2.1)."""
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None:
        low, high = values.min(), values.max()
        return np.zeros_like(values) if low == high else (values - low) / (high - low)
    smallest = 1 if function == "LINEAR" else 0  # a width must be at least 1 there, above 0 elsewhere
    if not (np.isfinite(center) and np.isfinite(width) and width >= smallest and width > 0):
        raise LeakpipeError(f"{path}: window centre {center} and width {width} are not a valid {function} window")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return ((values - center) / width + 0.5).clip(0, 1)


def _first(value: Any) -> float | None:
    """Returns the first of one or more numbers; None if there is none."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") else value)
