"""Reading a DICOM image: stored values to gray levels as a viewer would show them (needs the extra `dicom`)."""

from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_dicom(path: Path) -> np.ndarray:
    """Read one image.

    Gray: rescale slope and intercept (or the modality LUT), then the first window, or the smallest and largest value
    where the file names no window; MONOCHROME1 is inverted, so that more is brighter.

    Returns:
        (height, width) or (height, width, 3), float32 in [0, 1].

    Raises:
        LeakpipeError: pydicom is missing, or the file cannot be read, is not one image, is larger than Pillow
            lets images be, or holds values that are not finite.
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
        raise LeakpipeError(f"{path}: says it has {rows}×{columns} pixels, more than {Image.MAX_IMAGE_PIXELS}")
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
    """Values to [0, 1] by the first window of the file, else by their range (DICOM PS3.3, C.11.2.1)."""
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None:
        low, high = values.min(), values.max()
        return np.zeros_like(values) if low == high else (values - low) / (high - low)
    smallest = 1 if function == "LINEAR" else 0  # a width must be at least 1 there, above 0 elsewhere
    if not (np.isfinite(center) and np.isfinite(width) and width >= smallest and width > 0):
        raise LeakpipeError(f"{path}: window centre {center} and width {width} are no {function} window")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return ((values - center) / width + 0.5).clip(0, 1)


def _first(value: Any) -> float | None:
    """The first of one or more numbers; None if there is none."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") else value)
