"""DICOM to gray levels: rescale, window, MONOCHROME1, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_rescale, apply_windowing

from leakpipe.data.image_files import read_dicom, read_image
from leakpipe.errors import LeakpipeError

STORED = np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)


def write_dicom(path: Path, stored: np.ndarray = STORED, **elements: Any) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = 12 if stored.dtype.itemsize == 2 else 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def said(path: Path) -> str:
    with pytest.raises(LeakpipeError) as raised:
        read_dicom(path)
    return str(raised.value).removeprefix(f"{path}: ")


def test_without_a_window_the_range_is_stretched(tmp_path: Path) -> None:
    read = read_dicom(write_dicom(tmp_path / "x.dcm", RescaleSlope=2, RescaleIntercept=-1024))
    stored = STORED.astype(np.float64)
    np.testing.assert_allclose(read, (stored - stored.min()) / (stored.max() - stored.min()), atol=1e-6)
    assert read.dtype == np.float32
    constant = read_dicom(write_dicom(tmp_path / "y.dcm", np.full((4, 4), 7, np.uint16)))
    assert (constant == 0).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_pydicoms(function: str, tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "x.dcm",
        RescaleSlope=2,
        RescaleIntercept=-1024,
        WindowCenter=[3000, 1],
        WindowWidth=[1500, 1],
        VOILUTFunction=function,
    )
    dataset = pydicom.dcmread(path)
    shown = apply_windowing(apply_rescale(dataset.pixel_array, dataset), dataset)  # to the range of the stored values
    low, high = -1024, 2 * 4095 - 1024
    np.testing.assert_allclose(read_dicom(path), (shown - low) / (high - low), atol=1e-6)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    bright = read_dicom(write_dicom(tmp_path / "2.dcm", **window))
    dark = read_dicom(write_dicom(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_allclose(dark, 1 - bright, atol=1e-6)


def test_signed_values_and_colour(tmp_path: Path) -> None:
    signed = np.linspace(-1000, 1000, 256).reshape(16, 16).astype(np.int16)
    np.testing.assert_allclose(read_dicom(write_dicom(tmp_path / "s.dcm", signed)), (signed + 1000) / 2000, atol=1e-6)
    color = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = write_dicom(
        tmp_path / "c.dcm", color, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB"
    )
    np.testing.assert_allclose(read_image(path, size=16, color=True), color.transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "holds values that are not finite"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "window centre 1.0 and width 0.0 are not a valid LINEAR window"),
        ({"NumberOfFrames": 2}, "holds 2 frames, expected one image"),
        ({"Rows": 60000, "Columns": 60000}, "declares 60000×60000 pixels, more than"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation 'PALETTE COLOR', expected"),
        ({"Rows": 500}, "cannot be read as a DICOM image: "),
    ],
)
def test_what_is_refused(elements: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert said(write_dicom(tmp_path / "x.dcm", **elements)).startswith(message)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_text("no DICOM")
    assert said(tmp_path / "x.dcm").startswith("cannot be read as a DICOM image: ")


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "x.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert said(path) == "reading DICOM needs pydicom: pip install 'leakpipe[dicom]'"
