"""Reads one DICOM image to the levels that a viewer shows, by pydicom's own handlers (extra `dicom`).

Overlays are a layer of graphics that viewers switch on and off and that nobody trains on; they are not drawn.
"""

import io
import re
import warnings
from collections.abc import MutableSequence
from pathlib import Path
from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
WINDOW = ("WindowCenter", "WindowWidth")
RESCALE = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}  # and what an element that is missing means
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
FRAME_MACROS = ("PixelMeasuresSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")  # first one counts
WIDEST = 16  # bits of a lookup table's entry
MAGIC, PREAMBLE = b"DICM", 128
HEAD = PREAMBLE + len(MAGIC) + 8  # bytes in which a data set begins, even after a damaged preamble
# Group 0002 or 0008, an element, and either two letters (explicit VR) or a short length (implicit).
FIRST_ELEMENT = re.compile(rb"[\x02\x08]\x00.\x00(?:[A-Z]{2}|.[\x00\x01]\x00\x00)", re.DOTALL)
OTHER_FORMATS = (b"\x89PNG", b"\xff\xd8", b"II*\x00", b"MM\x00*", b"PK\x03\x04")


def find_dicom(head: bytes) -> int | None:
    """Returns where a DICOM file begins in its first `HEAD` bytes; None if the bytes are clearly no DICOM.

    It is 0 in a file as the standard wants it, or where the first element stands if the preamble is missing or damaged.
    """
    if head[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC:
        return 0
    if head.startswith(OTHER_FORMATS):
        return None
    places = (0, len(MAGIC), PREAMBLE, PREAMBLE + len(MAGIC))
    return next((place for place in places if FIRST_ELEMENT.match(head, place)), None)


def read_dicom(path: Path) -> tuple[np.ndarray, float]:
    """Reads a DICOM image as a viewer shows it, without overlays.

    Gray values pass the modality LUT (or slope and intercept), then the first VOI LUT, else the first window, else they
    are stretched from the smallest to the largest. MONOCHROME1 is inverted, so that larger values are brighter. Pixels
    of the padding value are black and count for no range.

    Returns:
        Levels of shape (height, width) or (height, width, 3), float32 in [0, 1], and the height of a pixel divided by
        its width.

    Raises:
        LeakpipeError: pydicom or a decoder is missing, or the file cannot be read, holds several images, is larger than
            Pillow's limit, contradicts itself, or holds values that are not finite.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise LeakpipeError(f"{path}: reading DICOM needs pydicom: pip install 'leakpipe[dicom]'") from error
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of what is outside the standard; what matters is checked here
            dataset = _parse(path)
            return _show(path, dataset), _pixel_aspect(path, dataset)
    except LeakpipeError:
        raise
    except Exception as error:  # pydicom and its decoders raise types of their own
        reason = " ".join(str(error).split())
        raise LeakpipeError(f"{path}: cannot be read as a DICOM image: {reason}") from error


def has_overlay(path: Path) -> bool:
    """Returns whether a DICOM file holds a layer of graphics, which `read_dicom` does not draw."""
    return any(0x6000 <= tag.group <= 0x60FF for tag in _parse(path).keys())  # noqa: SIM118


def _parse(path: Path) -> Any:
    from pydicom import dcmread
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    content = path.read_bytes()
    start = find_dicom(content[:HEAD])
    if start is None:
        raise LeakpipeError(f"{path}: is not a DICOM file")
    dataset = dcmread(io.BytesIO(content[start:]), force=content[PREAMBLE:HEAD][: len(MAGIC)] != MAGIC)
    for keyword in (*REQUIRED, "PixelData"):
        if dataset.get(keyword) is None:
            raise LeakpipeError(f"{path}: has no {keyword}, expected a DICOM image")
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        if not little or dataset["PixelData"].is_undefined_length:
            raise LeakpipeError(f"{path}: has no TransferSyntaxUID, which says how its pixels are stored")
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    for groups in FRAME_GROUPS:  # where multi-frame objects keep what others have at the top
        for group in dataset.get(groups, [])[:1]:
            for macro in FRAME_MACROS:
                for item in group.get(macro, [])[:1]:
                    dataset.update(item)
    for keyword in (*WINDOW, *RESCALE, *SPACINGS):
        _read_commas(dataset, keyword)
    for keyword in (*WINDOW, *RESCALE, "VOILUTFunction"):
        _keep_first(path, dataset, keyword)
    return dataset


def _read_commas(dataset: Any, keyword: str) -> None:
    """Turns decimal commas, which the standard forbids, into points."""
    raw = dataset.get_item(keyword) if keyword in dataset else None
    if raw is not None and raw.is_raw and raw.value:
        dataset[keyword] = raw._replace(value=raw.value.replace(b",", b"."))


def _keep_first(path: Path, dataset: Any, keyword: str) -> None:
    """Keeps the first of several values, and no element that is empty."""
    value = dataset.get(keyword)
    dataset.pop(keyword, None)
    value = value[0] if value and isinstance(value, MutableSequence) else value
    value = RESCALE.get(keyword) if value in (None, "") else value
    if isinstance(value, str) and keyword != "VOILUTFunction":
        raise LeakpipeError(f"{path}: {keyword}: {value!r}, expected a number")
    if value is not None:
        setattr(dataset, keyword, value)


def _show(path: Path, dataset: Any) -> np.ndarray:
    from PIL import Image

    frames, rows, columns = int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.Rows), int(dataset.Columns)
    if frames != 1:
        raise LeakpipeError(f"{path}: holds {frames} frames, expected one image")
    if Image.MAX_IMAGE_PIXELS and rows * columns > Image.MAX_IMAGE_PIXELS:
        raise LeakpipeError(f"{path}: declares {rows}×{columns} pixels, more than {Image.MAX_IMAGE_PIXELS}")
    interpretation = str(dataset.PhotometricInterpretation)
    if interpretation not in GRAY + COLOR:
        raise LeakpipeError(f"{path}: PhotometricInterpretation {interpretation!r}, expected gray, RGB or YBR")
    if interpretation == "MONOCHROME2" and dataset.get("PresentationLUTShape") == "INVERSE":
        raise LeakpipeError(f"{path}: is MONOCHROME2 with PresentationLUTShape 'INVERSE', expected one polarity")
    stored = _decode(path, dataset)
    if interpretation in COLOR:
        return (stored / np.float32(2 ** int(dataset.BitsStored) - 1)).astype(np.float32)
    padding = _find_padding(dataset, stored)
    levels = _window(path, dataset, stored, padding)
    levels = 1 - levels if interpretation == "MONOCHROME1" else levels
    return np.where(padding, 0, levels).astype(np.float32)


def _decode(path: Path, dataset: Any) -> np.ndarray:
    """Returns the stored values: colour as RGB, without bits above BitsStored (old overlays), with their sign."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if not get_decoder(syntax).is_available:
        raise LeakpipeError(
            f"{path}: is compressed as {syntax.name}; reading it needs the package python-gdcm: "
            "pip install 'leakpipe[dicom]'"
        )
    bits, high = int(dataset.BitsStored), int(dataset.get("HighBit", dataset.BitsStored - 1))
    if high != bits - 1 or not 1 <= bits <= int(dataset.BitsAllocated):
        raise LeakpipeError(
            f"{path}: BitsStored {bits} of {dataset.BitsAllocated} up to HighBit {high}, expected {bits - 1}"
        )
    pixels: np.ndarray = pixel_array(dataset)
    unused = 8 * pixels.dtype.itemsize - bits
    return pixels << unused >> unused  # arithmetic: brings the sign back


def _find_padding(dataset: Any, stored: np.ndarray) -> np.ndarray:
    """Returns where pixels lie outside the image: PixelPaddingValue, up to PixelPaddingRangeLimit if there is one."""
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, dtype=bool)
    unused = 8 * stored.dtype.itemsize - int(dataset.BitsStored)
    value, limit = (dataset.get(keyword) for keyword in PADDING)
    ends = np.array([value, value if limit is None else limit], np.int64).astype(stored.dtype)
    ends = ends << unused >> unused  # often written without the sign
    return np.asarray((stored >= ends.min()) & (stored <= ends.max()))


def _window(path: Path, dataset: Any, stored: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Maps stored values to [0, 1] (DICOM PS3.3, C.11.1 and C.11.2)."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    _widen(dataset.get("ModalityLUTSequence"))
    values = np.asarray(apply_modality_lut(stored.astype(np.int64), dataset), dtype=np.float64)
    if not np.isfinite(values).all():
        raise LeakpipeError(f"{path}: holds values that are not finite (NaN or infinity)")
    if tables := dataset.get("VOILUTSequence"):
        depth = _widen(tables)
        shown, low, high = apply_voi_lut(np.rint(values).astype(np.int64), dataset), 0.0, 2.0**depth - 1
        if shown.max() > high:
            raise LeakpipeError(f"{path}: its VOI LUT has entries of more than the {depth} bits that it declares")
    elif all(keyword in dataset for keyword in WINDOW):
        # Infinities are mapped to the ends of the range that pydicom maps to.
        shown = apply_voi_lut(np.append(values, [-np.inf, np.inf]), dataset)
        shown, low, high = shown[:-2].reshape(values.shape), shown[-2], shown[-1]
    else:
        inside = values[~padding]
        shown, low, high = values, inside.min(initial=np.inf), inside.max(initial=-np.inf)
        if low >= high:
            return np.zeros_like(values)
    levels = (shown - low) / (high - low)
    if not np.isfinite(levels).all():
        window = " and ".join(f"{keyword} {dataset.get(keyword)}" for keyword in (*WINDOW, *RESCALE))
        raise LeakpipeError(f"{path}: {window} give no levels, expected finite numbers")
    return np.asarray(levels.clip(0, 1))


def _widen(tables: Any) -> int:
    """Has pydicom read a table as one of 16 bits (it takes few others, and overflows in them); returns the depth."""
    if not tables:
        return WIDEST
    entries, first, depth = tables[0].LUTDescriptor
    tables[0].LUTDescriptor = [entries, first, WIDEST]
    return int(depth)


def _pixel_aspect(path: Path, dataset: Any) -> float:
    for keyword in SPACINGS:
        if dataset.get(keyword):
            height, width = map(float, dataset[keyword].value)
            if not (0 < height < np.inf and 0 < width < np.inf):
                raise LeakpipeError(f"{path}: {keyword}: {height} and {width}, expected two numbers above 0")
            return height / width
    return 1.0
