"""DICOM to the levels that a viewer shows, against pydicom's handlers and closed forms; and what is refused."""

import sys
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_rescale, apply_voi, apply_windowing
from pydicom.pixels.utils import compress
from pydicom.sequence import Sequence

from leakpipe.data.dicom_files import has_overlay, read_dicom
from leakpipe.data.image_files import fit_square, is_dicom, read_image
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


def levels(path: Path) -> np.ndarray:
    return read_dicom(path)[0]


def table(entries: np.ndarray, *, first: int = 0, depth: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, depth])
    item.add_new("LUTData", "US", entries.tolist())
    return Sequence([item])


def said(path: Path) -> str:
    with pytest.raises(LeakpipeError) as raised:
        read_dicom(path)
    return str(raised.value).removeprefix(f"{path}: ")


def test_without_a_window_the_range_is_stretched(tmp_path: Path) -> None:
    read = levels(write_dicom(tmp_path / "x.dcm", RescaleSlope=2, RescaleIntercept=-1024))
    stored = STORED.astype(np.float64)
    np.testing.assert_allclose(read, (stored - stored.min()) / (stored.max() - stored.min()), atol=1e-6)
    assert read.dtype == np.float32
    constant = levels(write_dicom(tmp_path / "y.dcm", np.full((4, 4), 7, np.uint16)))
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
    np.testing.assert_allclose(levels(path), (shown - low) / (high - low), atol=1e-6)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    bright = levels(write_dicom(tmp_path / "2.dcm", **window))
    dark = levels(write_dicom(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_allclose(dark, 1 - bright, atol=1e-6)


def test_signed_values_and_colour(tmp_path: Path) -> None:
    signed = np.linspace(-1000, 1000, 256).reshape(16, 16).astype(np.int16)
    np.testing.assert_allclose(levels(write_dicom(tmp_path / "s.dcm", signed)), (signed + 1000) / 2000, atol=1e-6)
    color = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = write_dicom(
        tmp_path / "c.dcm", color, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB"
    )
    np.testing.assert_allclose(read_image(path, size=16, color=True), color.transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "holds values that are not finite"),
        (
            {"WindowCenter": 1, "WindowWidth": 0},
            "cannot be read as a DICOM image: The (0028,1051) Window Width must be",
        ),
        (
            {"WindowCenter": 1, "WindowWidth": 9, "RescaleSlope": 0},
            "WindowCenter 1.0 and WindowWidth 9.0 and RescaleSlope 0.0",
        ),
        (
            {"PresentationLUTShape": "INVERSE"},
            "is MONOCHROME2 with PresentationLUTShape 'INVERSE', expected one polarity",
        ),
        ({"HighBit": 15}, "BitsStored 12 of 16 up to HighBit 15, expected 11"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing: 0.0 and 1.0, expected two numbers above 0"),
        (
            {"VOILUTSequence": table(np.arange(4096), depth=8)},
            "its VOI LUT has entries of more than the 8 bits that it declares",
        ),
        ({"NumberOfFrames": 2}, "holds 2 frames, expected one image"),
        ({"Rows": 60000, "Columns": 60000}, "declares 60000×60000 pixels, more than"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation 'PALETTE COLOR', expected"),
        ({"Rows": 500}, "cannot be read as a DICOM image: "),
    ],
)
def test_what_is_refused(elements: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert said(write_dicom(tmp_path / "x.dcm", **elements)).startswith(message)


def test_a_window_in_words_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", WindowCenter="12.5", WindowWidth=9)
    path.write_bytes(path.read_bytes().replace(b"12.5", b"wide"))
    assert said(path) == "WindowCenter: 'wide', expected a number"


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_text("no DICOM")
    assert said(tmp_path / "x.dcm") == "is not a DICOM file"


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "x.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert said(path) == "reading DICOM needs pydicom: pip install 'leakpipe[dicom]'"


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.mark.parametrize("entries", [256, 4096])
@pytest.mark.parametrize("depth", [8, 12, 16])
def test_a_voi_lut_is_applied_and_goes_before_a_window(depth: int, entries: int, tmp_path: Path) -> None:
    curve = np.round((np.arange(entries) / (entries - 1)) ** 2 * (2**depth - 1)).astype(np.uint16)
    luts = {"VOILUTSequence": table(curve, first=100, depth=depth)}
    expected = curve[np.clip(RAMP.astype(int) - 100, 0, entries - 1)] / (2**depth - 1)
    alone = write_dicom(tmp_path / "x.dcm", RAMP, **luts)
    if depth > 8:  # pydicom's own index overflows in 8 bits
        dataset = pydicom.dcmread(alone)
        np.testing.assert_array_equal(apply_voi(RAMP, dataset) / (2**depth - 1), expected)
    np.testing.assert_allclose(levels(alone), expected, atol=1e-6)
    beside = write_dicom(tmp_path / "y.dcm", RAMP, WindowCenter=10, WindowWidth=20, **luts)
    np.testing.assert_allclose(levels(beside), expected, atol=1e-6)


def test_a_voi_lut_of_rescaled_values_may_begin_below_zero(tmp_path: Path) -> None:
    curve = np.linspace(0, 4095, 4096).astype(np.uint16)[::-1]
    path = write_dicom(
        tmp_path / "x.dcm",
        RAMP,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        VOILUTSequence=table(curve, first=-1024, depth=12),
    )
    np.testing.assert_allclose(levels(path), curve[RAMP] / 4095, atol=1e-6)


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_a_modality_lut_comes_before_the_window(depth: int, tmp_path: Path) -> None:
    curve = np.round(np.sqrt(np.arange(4096) / 4095) * (2**depth - 1)).astype(np.uint16)
    middle = 2.0 ** (depth - 1)
    path = write_dicom(
        tmp_path / "x.dcm",
        RAMP,
        ModalityLUTSequence=table(curve, depth=depth),
        WindowCenter=middle,
        WindowWidth=middle,
        VOILUTFunction="LINEAR_EXACT",
    )
    if depth in (8, 16):  # pydicom takes no others
        dataset = pydicom.dcmread(path)
        np.testing.assert_array_equal(apply_modality_lut(RAMP.astype(np.int64), dataset), curve[RAMP])
    expected = ((curve[RAMP] - middle) / middle + 0.5).clip(0, 1)
    np.testing.assert_allclose(levels(path), expected, atol=1e-6)


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    first = levels(write_dicom(tmp_path / "1.dcm", WindowCenter=2000, WindowWidth=500))
    several = levels(write_dicom(tmp_path / "2.dcm", WindowCenter=[2000, 40], WindowWidth=[500, 80]))
    np.testing.assert_array_equal(first, several)


def with_commas(path: Path, *numbers: str) -> Path:
    content = path.read_bytes()
    for number in numbers:
        assert number.encode() in content
        content = content.replace(number.encode(), number.replace(".", ",").encode())
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("written", ["40.5", ["40.5", "3.5"]])
def test_a_decimal_comma_is_read(written: str | list[str], tmp_path: Path) -> None:
    """DICOM wants a point. 87 levels lie in this window; its first character would leave 2."""
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    window = {"WindowCenter": written, "WindowWidth": "90.5", "VOILUTFunction": "LINEAR_EXACT"}
    point = levels(write_dicom(tmp_path / "1.dcm", stored, **window))
    comma = levels(with_commas(write_dicom(tmp_path / "2.dcm", stored, **window), "40.5", "90.5"))
    np.testing.assert_allclose(point, ((stored - 40.5) / 90.5 + 0.5).clip(0, 1), atol=1e-6)
    np.testing.assert_array_equal(comma, point)
    assert len(np.unique(comma)) == 87


def test_an_empty_element_means_none(tmp_path: Path) -> None:
    empty = dict.fromkeys(("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "VOILUTFunction"), "")
    np.testing.assert_array_equal(
        levels(write_dicom(tmp_path / "x.dcm", **empty)), levels(write_dicom(tmp_path / "y.dcm"))
    )
    window = {"WindowCenter": 2000, "WindowWidth": 500}
    slope = levels(write_dicom(tmp_path / "a.dcm", RescaleSlope=2, **window))
    both = levels(write_dicom(tmp_path / "b.dcm", RescaleSlope=2, RescaleIntercept=0, **window))
    np.testing.assert_array_equal(slope, both)


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("padding", "limit"), [(4095, None), (0, 99), (63536, None)])
def test_padding_is_black_and_stretches_no_range(
    padding: int, limit: int | None, interpretation: str, tmp_path: Path
) -> None:
    signed = padding == 63536  # -2000 without its sign, as many scanners write it
    image = np.random.default_rng(1).integers(1000, 2000, (16, 16)).astype(np.int16 if signed else np.uint16)
    image[8, 8], image[8, 9] = 1000, 2000
    expected = (image - 1000.0) / 1000
    stored = image.copy()
    stored[:4] = -2000 if signed else (50 if limit else padding)
    elements: dict[str, Any] = {"BitsStored": 16, "HighBit": 15} if signed else {}
    elements |= {} if limit is None else {"PixelPaddingRangeLimit": limit}
    path = tmp_path / "x.dcm"
    write_dicom(
        path,
        stored,
        PixelPaddingValue=-2000 if signed else padding,
        PhotometricInterpretation=interpretation,
        **elements,
    )
    if signed:
        dataset = pydicom.dcmread(path)
        del dataset[0x00280120]
        dataset.add_new(0x00280120, "US", padding)
        dataset.save_as(path)
    expected = 1 - expected if interpretation == "MONOCHROME1" else expected
    expected[:4] = 0
    np.testing.assert_allclose(levels(path), expected, atol=1e-6)


def test_signed_values_of_twelve_bits_and_bits_above_them(tmp_path: Path) -> None:
    """Old overlays lie in the bits above BitsStored."""
    signed = np.linspace(-2048, 2047, 256).astype(np.int16).reshape(16, 16)
    plain = levels(write_dicom(tmp_path / "1.dcm", signed))
    np.testing.assert_allclose(plain, (signed + 2048) / 4095, atol=1e-6)
    with_overlay = ((signed.view(np.uint16) & 0x0FFF) | 0x5000).view(np.int16)
    np.testing.assert_array_equal(levels(write_dicom(tmp_path / "2.dcm", with_overlay)), plain)
    np.testing.assert_array_equal(
        levels(write_dicom(tmp_path / "3.dcm", STORED | 0x9000)), levels(write_dicom(tmp_path / "4.dcm"))
    )


def test_jpeg_2000_loses_the_bits_above_those_stored(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(STORED | np.uint16(0x9000)).save(tmp_path / "x.j2k", irreversible=False, no_jp2=True)
    path = write_dicom(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pydicom.encaps.encapsulate([(tmp_path / "x.j2k").read_bytes()])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    dataset.save_as(tmp_path / "j.dcm")
    np.testing.assert_array_equal(levels(tmp_path / "j.dcm"), levels(path))


@pytest.mark.parametrize(
    "elements",
    [{"PixelAspectRatio": [2, 1]}, {"PixelSpacing": [0.6, 0.3]}, {"ImagerPixelSpacing": ["0.6", "0.3"]}],
)
def test_pixels_that_are_not_square_keep_the_anatomy_s_proportions(elements: dict[str, Any], tmp_path: Path) -> None:
    """A disc of 60 mm in 40×80 pixels that are twice as high as wide fills the square as in 80×80 square ones."""
    rows, columns = np.mgrid[:80, :80]
    disc = 4095 * ((rows - 39.5) ** 2 + (columns - 39.5) ** 2 < 30**2)
    half = disc.reshape(40, 2, 80).mean(1).astype(np.uint16)
    path = write_dicom(tmp_path / "x.dcm", half, **elements)
    read = read_image(path, size=40, color=False)
    square = fit_square(disc / 4095, 40)
    assert np.abs(read - square).mean() < 0.02
    assert np.abs(read_image(write_dicom(tmp_path / "y.dcm", half), size=40, color=False) - square).mean() > 0.2
    wide = write_dicom(tmp_path / "w.dcm", np.repeat(half, 2, axis=0), **elements)  # 160 mm high: cropped to the centre
    assert read_image(wide, size=40, color=False).mean() > read.mean()


def test_one_frame_keeps_its_window_in_the_functional_groups(tmp_path: Path) -> None:
    def nested(macro: str, **elements: Any) -> Dataset:
        item, group = Dataset(), Dataset()
        item.update(elements)
        setattr(group, macro, Sequence([item]))
        return group

    flat = levels(
        write_dicom(tmp_path / "1.dcm", WindowCenter=100, WindowWidth=400, RescaleSlope=1, RescaleIntercept=-2000)
    )
    groups = nested("FrameVOILUTSequence", WindowCenter=100, WindowWidth=400)
    groups.update(nested("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-2000))
    enhanced = write_dicom(tmp_path / "2.dcm", NumberOfFrames=1, PerFrameFunctionalGroupsSequence=Sequence([groups]))
    np.testing.assert_array_equal(levels(enhanced), flat)


def test_overlays_are_not_drawn_but_known(tmp_path: Path) -> None:
    plain = write_dicom(tmp_path / "1.dcm")
    dataset = pydicom.dcmread(plain)
    dataset.add_new(0x60000010, "US", 16)
    dataset.add_new(0x60000011, "US", 16)
    dataset.add_new(0x60003000, "OW", b"\xff" * 32)
    drawn = tmp_path / "2.dcm"
    dataset.save_as(drawn)
    np.testing.assert_array_equal(levels(drawn), levels(plain))
    assert [has_overlay(path) for path in (plain, drawn)] == [False, True]


def test_run_lengths_are_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    compress(dataset, pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(levels(tmp_path / "rle.dcm"), levels(path))


@pytest.mark.parametrize("syntax", ["JPEGLosslessSV1", "JPEGLSLossless"])
def test_a_missing_decoder_is_named(syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = pydicom.pixels.decoders.base.get_decoder(getattr(pydicom.uid, syntax))
    monkeypatch.setattr(decoder, "_available", {})
    path = write_dicom(tmp_path / "x.dcm")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    dataset.save_as(path)
    message = said(path)
    assert message.startswith("is compressed as JPEG")
    assert message.endswith("needs the package python-gdcm: pip install 'leakpipe[dicom]'")


@pytest.mark.parametrize("form", ["jpeg_ls_lossless", "jp2klossless", "RLE", "bigendian", "implicit"])
def test_one_image_in_every_form_has_the_same_levels(form: str) -> None:
    """Written by others; pydicom ships the files."""
    path = Path(str(get_testdata_file(f"MR_small_{form}.dcm", download=False)))
    plain = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    np.testing.assert_array_equal(levels(path), levels(plain))
    assert len(np.unique(levels(plain))) > 200


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLosslessProcess14", "JPEGLSLossless"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_is_read_by_the_package_that_the_message_names(bits: int, syntax: str, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 2**bits, (32, 16)).astype(np.uint8 if bits == 8 else np.uint16)
    path = write_dicom(tmp_path / "x.dcm", stored, BitsStored=bits, HighBit=bits - 1, WindowCenter=90, WindowWidth=50)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "y.dcm"))
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "y.dcm").file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(levels(tmp_path / "y.dcm"), levels(path))


@pytest.mark.parametrize("name", ["x.dcm", "x.dicom", "IM000001", "1.2.840.113.33"])
@pytest.mark.parametrize("damage", ["none", "no magic", "no preamble", "only the magic", "no meta"])
def test_names_and_damaged_preambles(damage: str, name: str, tmp_path: Path) -> None:
    expected, path = levels(write_dicom(tmp_path / "whole")), write_dicom(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(
        {
            "none": content,
            "no magic": bytes(128) + b"XXXX" + content[132:],
            "no preamble": content[132:],
            "only the magic": content[128:],
            "no meta": content[132 + 12 + content[140] :],  # group length, then as many bytes
        }[damage]
    )
    assert is_dicom(path)
    np.testing.assert_array_equal(levels(path), expected)


def test_a_compressed_file_without_its_syntax_is_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_dicom(tmp_path / "x.dcm"))
    compress(dataset, pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "x.dcm")
    content = (tmp_path / "x.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(content[132 + 12 + content[140] :])
    assert said(tmp_path / "x.dcm") == "has no TransferSyntaxUID, which says how its pixels are stored"
