"""The COVID-19 Radiography Database: the chest X-rays of the paper, in the folders that Kaggle unpacks."""

from leakpipe.data.datalists import listed_images
from leakpipe.data.folders import find_root, list_images, load_images
from leakpipe.data.images import Contents, Dataset, LabeledImages
from leakpipe.errors import LeakpipeError
from leakpipe.params.data import ImagesParams

KAGGLE = "tawsifurrahman/covid19-radiography-database"
FOLDER = "COVID-19_Radiography_Dataset"
PUBLISHED = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
CLASSES = ("Normal", "COVID")  # the two of the paper, labelled 0 and 1 as in its published datalists


def _contents(params: ImagesParams) -> Contents:
    """Returns the published numbers, so that an experiment can be planned before the data are downloaded."""
    classes = params.classes or CLASSES
    for name in classes:
        if name not in PUBLISHED:
            known = ", ".join(PUBLISHED)
            raise LeakpipeError(f"data.classes: {name!r} is not a class of 'covid-radiography'; known: {known}")
    images = sum(PUBLISHED[name] for name in classes)
    return Contents(classes, min(images, params.images or images))


def _load(params: ImagesParams) -> LabeledImages:
    root = find_root(params, FOLDER)
    if not root.is_dir():
        raise LeakpipeError(
            f"{root}: the folder of data set 'covid-radiography' is missing; download it with `leakpipe fetch "
            "covid-radiography` (and a Kaggle account), or set data.root to it, or LEAKPIPE_DATA to its parent"
        )
    folder = list_images(root, _contents(params).classes, inside="images")
    return load_images(folder, params, color=False, kept=listed_images(params))


COVID_RADIOGRAPHY = Dataset(
    source=f"https://www.kaggle.com/datasets/{KAGGLE}: gray PNG of 299×299 pixels, one folder per class",
    licence="those of the collections it was compiled from; Kaggle lists it as `Data files © Original Authors`",
    citation=(
        "Chowdhury et al.: Can AI Help in Screening Viral and COVID-19 Pneumonia? IEEE Access 8, 2020, 132665–132676, "
        "doi 10.1109/ACCESS.2020.3010287. Rahman et al.: Exploring the effect of image enhancement techniques on "
        "COVID-19 detection using chest X-ray images. Computers in Biology and Medicine 132, 2021, 104319, "
        "doi 10.1016/j.compbiomed.2021.104319."
    ),
    contents=_contents,
    load=_load,
)
