"""`cxr-phantom`: the same patient whatever else is made, pictures like radiographs, disease in the lungs only."""

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import zoom
from skimage.metrics import structural_similarity

from leakpipe.data.datasets import DATASETS
from leakpipe.data.files import load_dataset, save_dataset
from leakpipe.data.images import LabeledImages
from leakpipe.data.phantom import CLASSES, film, generate
from leakpipe.data.phantom.generate import make_radiograph
from leakpipe.data.phantom.overlay import FAMILY, GIVEN, write_overlay
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json, sidecar_path, write_json
from leakpipe.params.data import ImagesParams
from tests.conftest import PROJECT


def make_phantoms(count: int, size: int, *, burned_text: bool) -> LabeledImages:
    params = {"dataset": "cxr-phantom", "images": count, "image_size": size, "burned_text": burned_text}
    return DATASETS["cxr-phantom"].load(ImagesParams.model_validate(params))


def test_the_same_patient_gives_the_same_bytes() -> None:
    assert make_radiograph(7, 64).tobytes() == make_radiograph(7, 64).tobytes()


def test_an_image_does_not_depend_on_how_many_there_are() -> None:
    few, many = (make_phantoms(count, 128, burned_text=True) for count in (3, 6))
    np.testing.assert_array_equal(few.images, many.images[:3])
    assert few.texts == many.texts[:3]
    assert many.labels.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("size", [16, 50, 128, 224])
def test_values_are_gray_levels(size: int) -> None:
    for index in range(4):
        image = make_radiograph(index, size)
        assert (image.shape, image.dtype) == ((size, size), np.float32)
        assert 0 <= image.min() < 0.3 < 0.6 < image.max() <= 1


def test_a_patient_is_the_same_at_every_size() -> None:
    for index in range(4):
        small, large = make_radiograph(index, 64), make_radiograph(index, 256)
        assert np.corrcoef(zoom(large, 0.25, order=1).ravel(), small.ravel())[0, 1] > 0.95


def test_patients_differ_as_people_do() -> None:
    images = make_phantoms(8, 128, burned_text=False).images[:, 0]
    likeness = [structural_similarity(images[i], images[j], data_range=1) for i in range(8) for j in range(i)]
    assert 0.05 < np.mean(likeness) < 0.6
    assert max(likeness) < 0.8


def test_opacities_are_fluid_in_lungs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attenuation of the same patient with and without them."""
    seen = []
    monkeypatch.setattr(generate, "expose", lambda attenuation, _rng: seen.append(attenuation) or attenuation)
    patches = generate.draw_patches
    make_radiograph(1, 128)
    monkeypatch.setattr(generate, "draw_patches", lambda patient, rng: patches(patient, rng) and ())
    make_radiograph(1, 128)
    ill, well = seen
    added = ill - well
    assert added.min() >= -1e-3
    assert 0.02 < (added > 0.1).mean() < 0.4
    # At most all of the air of the deepest lung turned into water.
    assert added.max() < (film.WATER - film.LUNG) * 22
    assert np.median(well[added > 0.1]) < np.median(well), "lungs let most through"


def test_attenuation_is_counted_back() -> None:
    """A wedge of known attenuation is measured without bias, with the noise of as many quanta as arrive."""
    wedge = np.repeat(np.linspace(0.5, 4, 8, dtype=np.float32), 28)[None, :].repeat(224, axis=0)
    measured = film.expose(wedge, np.random.default_rng(0))
    for step in range(8):
        inside = measured[:, step * 28 + 6 : step * 28 + 22]
        true = wedge[0, step * 28]
        noise = np.exp(true / 2) / np.sqrt(film.QUANTA / 224**2)
        assert inside.mean() == pytest.approx(true, abs=0.002)
        assert inside.std() == pytest.approx(noise, rel=0.05)


def test_every_name_fits_on_the_smallest_film() -> None:
    assert max(map(len, FAMILY)) + 1 + max(map(len, GIVEN)) <= 12
    for size in (128, 224, 1024):
        film_of_size = np.zeros((1, size, size), dtype=np.float32)
        for index in range(60):
            for text in write_overlay(index, size):
                text.cut_cells(film_of_size)


def test_text_is_burned_in_and_stored_with_the_images(tmp_path: Path) -> None:
    plain, written = (make_phantoms(3, 128, burned_text=text) for text in (False, True))
    assert plain.texts == ()
    assert (plain.images != written.images).any(axis=(1, 2, 3)).all()
    assert (plain.images[:, :, 40:] == written.images[:, :, 40:]).all()
    save_dataset(tmp_path / "images.safetensors", written)
    stored = load_dataset(tmp_path / "images.safetensors")
    assert stored.texts == written.texts
    assert stored.texts_of(2) == write_overlay(2, 128)
    save_dataset(tmp_path / "plain.safetensors", plain)
    assert load_dataset(tmp_path / "plain.safetensors").texts_of(2) == ()
    assert "texts" not in read_json(sidecar_path(tmp_path / "plain.safetensors"))["metadata"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda texts: texts.pop(), "metadata.texts: 1 entries, expected one for each of 2 images"),
        (lambda texts: texts[1][0].update(text="anna"), "metadata.texts.1: text 'anna': expected characters"),
        (lambda texts: texts[1][0].update(left=100), r"metadata.texts.1: text '.*' covers rows .* do not lie in"),
        (lambda texts: texts[0][0].pop("size"), "metadata.texts.0: .*missing 1 required positional argument: 'size'"),
    ],
)
def test_damaged_texts_are_said(tmp_path: Path, edit: object, said: str) -> None:
    path = tmp_path / "images.safetensors"
    save_dataset(path, make_phantoms(2, 128, burned_text=True))
    content = read_json(sidecar_path(path))
    edit(content["metadata"]["texts"])  # type: ignore[operator]
    write_json(sidecar_path(path), content)
    with pytest.raises(LeakpipeError, match=said):
        load_dataset(path)


def test_its_entry_knows_what_it_holds_without_making_it() -> None:
    entry = DATASETS["cxr-phantom"]
    contents = entry.contents(ImagesParams(dataset="cxr-phantom", image_size=1024))
    assert contents
    assert (contents.classes, contents.images) == (CLASSES, 1000)


def test_the_room_could_leave_as_a_package() -> None:
    """Nothing outside imports more of it than its face and its entry."""
    inside = PROJECT / "src/leakpipe/data/phantom"
    outside = [path for path in (PROJECT / "src").rglob("*.py") if inside not in path.parents]
    found = {module for path in outside for module in re.findall(r"leakpipe\.data\.phantom[.\w]*", path.read_text())}
    assert found == {"leakpipe.data.phantom", "leakpipe.data.phantom.entry"}
    assert not [path.name for path in inside.glob("*.py") if path.stem != "entry" and "data.images" in path.read_text()]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dataset": "lfw-faces", "images": 10}, "only 'cxr-phantom' and .* can have it; not 'lfw-faces': got 10"),
        ({"dataset": "lfw-faces", "burned_text": True}, "only 'cxr-phantom' can have it; not 'lfw-faces'"),
        ({"dataset": "cxr-phantom", "burned_text": True}, "burned_text needs an image_size of at least 128, got 64"),
    ],
)
def test_fields_of_the_phantom_are_its_own(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ImagesParams.model_validate({"image_size": 64, **fields})
