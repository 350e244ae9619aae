"""The sample of `cxr-phantom` and its Croissant metadata are what the code draws, and mlcroissant reads them.

`pytest tests/metadata/test_croissant.py --fix` writes both.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakpipe import __version__
from leakpipe.data.phantom import CLASSES
from leakpipe.data.phantom.entry import CXR_PHANTOM
from leakpipe.data.phantom.generate import make_phantoms
from leakpipe.params.reading import read_yaml
from tests.conftest import PROJECT

FOLDER = PROJECT / "docs" / "cxr-phantom"
ARCHIVE, METADATA = FOLDER / "sample.zip", FOLDER / "croissant.json"
COUNT, SIZE, DATE = 8, 64, "2026-11-29"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def drawn() -> dict[str, np.ndarray]:
    """The first patients by file name, as 8-bit images."""
    images, labels, _ = make_phantoms(COUNT, SIZE, burned_text=False)
    names = [f"{CLASSES[label]}-{index:03}.png" for index, label in enumerate(labels)]
    return {name: (255 * image[0]).round().astype(np.uint8) for name, image in zip(names, images, strict=True)}


def pack(images: dict[str, np.ndarray]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, pixels in images.items():
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "png", optimize=True)
            archive.writestr(zipfile.ZipInfo(name), png.getvalue())
    return packed.getvalue()


def unpack(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()}


def source(**extract: Any) -> dict[str, Any]:
    return {"source": {"fileSet": {"@id": "radiographs"}, **extract}}


def field(name: str, about: str, kind: str, origin: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field", "@id": f"patients/{name}", "name": name, "description": about, "dataType": kind, **origin
    }  # fmt: skip


def describe(archive: bytes) -> dict[str, Any]:
    citation = read_yaml(PROJECT / "CITATION.cff")
    name = {"extract": {"fileProperty": "filename"}}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": "cxr-phantom",
        "description": "Chest radiographs of patients who do not exist, drawn by leakpipe.data.phantom from a seed, at "
        f"any size and in any number. The archive is a sample: the first {COUNT} at {SIZE}×{SIZE} pixels.",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "citeAs": f"{CXR_PHANTOM.citation}: {citation['title']}, version {__version__}",
        "creator": {"@type": "Organization", "name": citation["authors"][0]["name"]},
        "datePublished": DATE,
        "keywords": ["chest X-ray", "synthetic", "gradient inversion", "federated learning"],
        "license": f"https://spdx.org/licenses/{citation['license']}",
        "version": __version__,
        "isLiveDataset": False,
        "rai:dataCollection": "None: attenuation of drawn organs is summed along each ray and displayed like a film.",
        "rai:dataBiases": "Anatomy is one parametric model of an adult; it has no sex, age, device or hospital.",
        "rai:dataLimitations": "A substitute for real radiographs in studies of leakage. Not for diagnosis, and no "
        "evidence of how a diagnostic model performs on patients.",
        "rai:personalSensitiveInformation": "None. Names and birth dates of `data.burned_text` are invented.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "archive",
                "name": ARCHIVE.name,
                "description": "The sample.",
                "contentUrl": ARCHIVE.name,
                "contentSize": f"{len(archive)} B",
                "encodingFormat": "application/zip",
                "sha256": hashlib.sha256(archive).hexdigest(),
            },
            {
                "@type": "cr:FileSet",
                "@id": "radiographs",
                "name": "radiographs",
                "description": "One gray image of 8 bits per patient; its name begins with its class.",
                "containedIn": {"@id": "archive"},
                "encodingFormat": "image/png",
                "includes": "*.png",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "patients",
                "name": "patients",
                "description": "One record per patient.",
                "key": {"@id": "patients/file"},
                "field": [
                    field("file", "Name of the file.", "sc:Text", source(**name)),
                    field("image", "The radiograph.", "sc:ImageObject", source(extract={"fileProperty": "content"})),
                    field(
                        "class", "clear or opacities.", "sc:Text", source(**name, transform={"regex": "^([a-z]+)-.*$"})
                    ),
                ],
            }
        ],
    }  # fmt: skip


def test_the_sample_is_what_the_code_draws(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--fix"):
        ARCHIVE.write_bytes(pack(drawn()))
        METADATA.write_text(json.dumps(describe(ARCHIVE.read_bytes()), indent=1, ensure_ascii=False) + "\n")
    found, expected = unpack(ARCHIVE.read_bytes()), drawn()
    assert list(found) == list(expected)
    for name, pixels in expected.items():
        assert np.abs(found[name].astype(int) - pixels).max() <= 1, "rounding of another processor at most"


def test_the_metadata_describe_the_archive() -> None:
    assert json.loads(METADATA.read_text()) == describe(ARCHIVE.read_bytes()), "pytest tests/metadata --fix writes them"


def test_mlcroissant_finds_nothing_and_reads_the_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed: make test-metadata")
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path))
    data = croissant.Dataset(jsonld=METADATA)
    assert (data.metadata.issues.errors, data.metadata.issues.warnings) == (set(), set())
    records = list(data.records("patients"))
    read = {record["patients/file"].decode(): np.asarray(record["patients/image"]) for record in records}
    expected = unpack(ARCHIVE.read_bytes())
    assert read.keys() == expected.keys()
    assert all(np.array_equal(read[name], pixels) for name, pixels in expected.items())
    assert sorted({record["patients/class"].decode() for record in records}) == sorted(CLASSES)
