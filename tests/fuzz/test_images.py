"""Image files: written by tifffile, Pillow, pydicom or by hand, whole or damaged."""

import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from leakpipe.data.image_files import fit_square, read_image
from leakpipe.errors import LeakpipeError
from tests.fuzz.changes import damaged, edited, refused
from tests.unit.test_dicom_files import table, write_dicom
from tests.unit.test_image_files import png

SIDES = st.integers(1, 9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


def random_samples(data: st.DataObject, shape: tuple[int, ...], bits: int) -> np.ndarray:
    low, seed = data.draw(st.integers(0, 2**bits - 1)), data.draw(st.integers(0, 99))
    return np.random.default_rng(seed).integers(low, 2**bits, shape)


def check(path: Path, expected: np.ndarray) -> bool:
    """The file is refused, or has the levels that were written; returns whether it was refused."""
    found = refused(lambda: read_image(path, size=16, color=expected.ndim == 3))
    if not isinstance(found, LeakpipeError):
        np.testing.assert_allclose(found, fit_square(expected.astype(np.float32), 16), atol=2e-6)
    return isinstance(found, LeakpipeError)


@given(data=st.data())
def test_png(folder: Path, data: st.DataObject) -> None:
    kinds = [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6)]
    bits, kind = data.draw(st.sampled_from(kinds))
    channels = {0: (), 2: (3,), 4: (2,), 6: (4,)}[kind]
    stored = random_samples(data, (data.draw(SIDES), data.draw(SIDES), *channels), bits)
    if kind in (4, 6) and (opaque := data.draw(st.booleans())):
        stored[..., -1] = 2**bits - 1
    clear = data.draw(st.none() | st.integers(0, 2**bits - 1)) if kind == 0 else None
    chunks = {} if clear is None else {"tRNS": clear.to_bytes(2, "big")}
    path = png(folder / "x.png", stored, bits=bits, kind=kind, **chunks)
    shown = stored[..., :1].repeat(3, axis=-1) if kind == 4 else stored[..., :3] if kind else stored
    was_refused = check(path, shown / (2**bits - 1))
    transparent = (kind in (4, 6) and not opaque and stored[..., -1].min() < 2**bits - 1) or (stored == clear).any()
    assert was_refused == bool(transparent or (bits == 16 and kind))


@given(data=st.data())
def test_tiff(folder: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "b"]))
    channels = data.draw(st.sampled_from([(), (3,)])) if kind != "b" else ()
    bits = 1 if kind == "b" else 8 * int(kind[1])
    shape = (data.draw(SIDES), data.draw(SIDES), *channels)
    stored = random_samples(data, shape, min(bits, 31)).astype(bool if kind == "b" else kind)
    inverted = not channels and data.draw(st.booleans())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(
            folder / "x.tif",
            stored,
            photometric="rgb" if channels else ("miniswhite" if inverted else "minisblack"),
            compression=None if kind == "b" else data.draw(st.sampled_from([None, "zlib"])),
            byteorder=data.draw(st.sampled_from("<>")),
        )
    levels = stored.astype(np.float64) / (2**bits - 1)
    assert check(folder / "x.tif", 1 - levels if inverted else levels) or kind[0] not in "if"


WINDOW = {
    "WindowCenter": 100, "WindowWidth": 50, "RescaleSlope": 2, "RescaleIntercept": -3, "VOILUTFunction": "LINEAR_EXACT"
}  # fmt: skip


@given(data=st.data())
def test_dicom(folder: Path, data: st.DataObject) -> None:
    signed, allocated = data.draw(st.booleans()), data.draw(st.sampled_from([8, 16]))
    bits = data.draw(st.integers(2, allocated))
    stored = random_samples(data, (data.draw(SIDES), 2 * data.draw(SIDES)), bits)
    stored = (stored - signed * 2 ** (bits - 1)).astype(f"{'i' if signed else 'u'}{allocated // 8}")
    window = data.draw(edited(WINDOW, st.integers(-50, 50) | st.sampled_from([0.5, 1e-3, ""])))
    window = {name: value for name, value in window.items() if name in WINDOW}
    window["VOILUTFunction"] = function = data.draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    inverted = data.draw(st.booleans())
    elements: dict[str, Any] = {"BitsStored": bits, "HighBit": bits - 1, **window}
    elements["PhotometricInterpretation"] = "MONOCHROME1" if inverted else "MONOCHROME2"
    path = write_dicom(folder / "x.dcm", stored, **elements)
    center, width, slope, intercept = (
        None if window.get(name, "") == "" else float(window[name]) for name in list(WINDOW)[:4]
    )
    slope = 1.0 if slope is None else slope
    values = stored * slope + (intercept or 0)
    if center is None or width is None:
        span = np.ptp(values)
        levels = (values - values.min()) / span if span else np.zeros_like(values)
    elif width <= 0 or (function == "LINEAR" and width < 1) or slope == 0:
        assert check(path, values)
        return
    elif function == "SIGMOID":
        levels = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    elif function == "LINEAR" and width == 1:
        levels = (values > center - 0.5).astype(float)
    else:
        shift = function == "LINEAR"
        levels = ((values - center + 0.5 * shift) / (width - shift) + 0.5).clip(0, 1)
    assert not check(path, 1 - levels if inverted else levels)


@cache
def whole_files(folder: Path) -> list[bytes]:
    """One file of each kind."""
    gray, path = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, folder / "whole"
    curve = table(np.arange(4096), depth=12)
    shown = {"VOILUTSequence": curve, "PixelPaddingValue": 0, "PixelSpacing": [1, 2]}
    contents = [write_dicom(path, gray, **WINDOW).read_bytes()]
    contents.append(write_dicom(path, gray.astype(np.uint16), **shown).read_bytes())
    dataset = pydicom.dcmread(path)
    pydicom.pixels.utils.compress(dataset, pydicom.uid.RLELossless)
    dataset.save_as(path)
    contents.append(path.read_bytes())
    for form in ("PNG", "JPEG", "TIFF"):
        stream = io.BytesIO()
        Image.fromarray(gray).save(stream, form)
        contents.append(stream.getvalue())
    stream = io.BytesIO()
    tifffile.imwrite(stream, gray.astype(np.uint16), photometric="miniswhite", compression="zlib")
    contents.append(stream.getvalue())
    contents.append(png(path, gray.astype(int) * 257, bits=16, kind=0, tRNS=b"\0\7").read_bytes())
    return contents


@given(data=st.data())
def test_damaged_images(folder: Path, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(whole_files(folder)))
    path = folder / data.draw(st.sampled_from(["x", "x.png", "x.dcm", "x.tif"]))
    spoilt = data.draw(damaged(content))
    assume(spoilt != content)
    path.write_bytes(spoilt)
    color = data.draw(st.booleans())
    found = refused(lambda: read_image(path, size=16, color=color))
    if not isinstance(found, LeakpipeError):
        assert found.shape == (3 if color else 1, 16, 16)
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1)).all()
