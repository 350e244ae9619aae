"""What an experiment is made of, as an RO-Crate: every file, the job that made it, licences, who to cite.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) with the Process Run Crate profile 0.5
(https://w3id.org/ro/wfrun/process/0.5): each job is a `CreateAction` from the files that it read to those that it
wrote. Everything comes from the run records, so that the crate says what the jobs left, not what is there now.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from leakpipe import __version__
from leakpipe.errors import LeakpipeError
from leakpipe.files.log import hash_file

CRATE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
SOFTWARE, LICENCE_OF_DATA, DATA_SET = "#leakpipe", "#licence-of-data", "#data-set"

Entity = dict[str, Any]
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class About:
    """What run records do not know of an experiment.

    Attributes:
        experiment: Its name.
        data_set: Name of the data set.
        source: Where the data come from.
        licence: Under which licence.
        data_citation: How they are cited.
        citation: Content of CITATION.cff: title, authors, licence and references of the software.
    """

    experiment: str
    data_set: str
    source: str
    licence: str
    data_citation: str
    citation: Mapping[str, Any]


def build_crate(folder: Path, records: Mapping[Path, Record], params: Path, about: About) -> Entity:
    """Describe the results in `folder` as the content of its `ro-crate-metadata.json`.

    Args:
        folder: The crate's root: results/<experiment>.
        records: Run records of all jobs, by path.
        params: File of the parameters, in `folder`.
        about: What the records do not know.

    Returns:
        JSON-LD; the same for the same records.

    Raises:
        LeakpipeError: A record has no list of outputs, or names one that does not exist.
    """
    digests = {str(params): hash_file(params)}
    for path, record in sorted(records.items()):
        if "outputs" not in record:
            raise LeakpipeError(f"{path}: outputs: missing; the record is of an older leakpipe, run its job again")
        digests |= {str(path): hash_file(path), **record["outputs"]}
    files = [_file(folder, path, sha256) for path, sha256 in sorted(digests.items())]
    actions = [_action(folder, path, record) for path, record in sorted(records.items())]
    actions.sort(key=lambda action: (action["startTime"], action["@id"]))
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"leakpipe experiment {about.experiment}",
        "description": "Measured leakage of training images from federated learning: parameters, data, models, "
        "updates, reconstructions, tables, figures, report, and the run record of every job.",
        "datePublished": max(action["endTime"] for action in actions),
        "conformsTo": {"@id": PROFILE},
        "license": {"@id": LICENCE_OF_DATA},
        "author": _references(map(_author, about.citation["authors"])),
        "isBasedOn": {"@id": DATA_SET},
        "hasPart": _references(files),
        "mentions": _references(actions),
    }
    software = list(_software(about.citation, records))
    return {"@context": CONTEXT, "@graph": [*_frame(root), *software, *_data(about), *actions, *files]}


def _frame(root: Entity) -> Iterator[Entity]:
    yield {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }
    yield root
    yield {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}


def _data(about: About) -> Iterator[Entity]:
    """The data set and its licence."""
    yield {
        "@id": DATA_SET,
        "@type": "Dataset",
        "name": about.data_set,
        "description": about.source,
        "creditText": about.data_citation,
        "license": {"@id": LICENCE_OF_DATA},
    }
    yield {"@id": LICENCE_OF_DATA, "@type": "CreativeWork", "name": about.licence}


def _software(citation: Mapping[str, Any], records: Mapping[Path, Record]) -> Iterator[Entity]:
    """leakpipe, its authors and licence, the works to cite, and the packages that it ran on."""
    authors = [_author(author) for author in citation["authors"]]
    works = [_work(work) for work in citation.get("references", ())]
    licence = f"https://spdx.org/licenses/{citation['license']}"
    packages = sorted({item for record in records.values() for item in record["environment"]["versions"].items()})
    required = [_package(name, version) for name, version in packages if name != "leakpipe"]
    yield {
        "@id": SOFTWARE,
        "@type": "SoftwareApplication",
        "name": citation["title"],
        "softwareVersion": __version__,
        "license": {"@id": licence},
        "author": _references(authors),
        "citation": _references(works),
        "softwareRequirements": _references(required),
    }
    yield {"@id": licence, "@type": "CreativeWork", "name": citation["license"]}
    yield from authors
    yield from works
    yield from required


def _author(author: Mapping[str, str]) -> Entity:
    """A person or an organisation of CITATION.cff."""
    if "name" in author:
        return {"@id": f"#{_slug(author['name'])}", "@type": "Organization", "name": author["name"]}
    name = f"{author['given-names']} {author['family-names']}"
    return {"@id": f"#{_slug(name)}", "@type": "Person", "name": name}


def _work(work: Mapping[str, Any]) -> Entity:
    """A reference of CITATION.cff."""
    names = ", ".join(_author(author)["name"] for author in work["authors"])
    place = f"https://doi.org/{work['doi']}" if "doi" in work else f"#{_slug(work['title'])}"
    return {
        "@id": place,
        "@type": "ScholarlyArticle",
        "name": work["title"],
        "creditText": f"{names}: {work['title']}. {work['journal']}, {work['year']}.",
    }


def _package(name: str, version: str) -> Entity:
    return {
        "@id": f"#{name}-{version}",
        "@type": "SoftwareApplication",
        "name": name,
        "softwareVersion": version,
    }


def _file(folder: Path, path: str, sha256: str) -> Entity:
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise LeakpipeError(f"{path}: cannot be read: {error.strerror or error}; its run record lists it") from error
    entity = {"@id": _place(folder, path), "@type": "File", "contentSize": str(size), "sha256": sha256}
    kind = FORMATS.get(Path(path).suffix)
    return {**entity, "encodingFormat": kind} if kind else entity


def _action(folder: Path, path: Path, record: Record) -> Entity:
    """One job: what it read and wrote, when, by which code, on what."""
    environment = record["environment"]
    started = datetime.fromisoformat(environment["started"])
    ended = started + timedelta(seconds=environment["seconds"])
    labels = " ".join(f"{name}={value}" for name, value in record["labels"].items() if name != "experiment")
    changed = " with uncommitted changes" if environment["uncommitted_changes"] else ""
    inside = {name for name in record["inputs"] if Path(name).is_relative_to(folder)}
    return {
        "@id": f"#{record['id']}",
        "@type": "CreateAction",
        "name": f"{record['rule']} {labels}".strip(),
        "description": f"commit {environment['commit']}{changed}, code {environment['code_version']}, parameters "
        f"{record['params_hash']}, {environment['processor']}, {environment['peak_memory_mib']} MiB",
        "instrument": {"@id": SOFTWARE},
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
        "startTime": started.isoformat(timespec="milliseconds"),
        "endTime": ended.isoformat(timespec="milliseconds"),
        "object": _compact([{"@id": _place(folder, name)} for name in sorted(inside)]),
        "result": _compact([{"@id": _place(folder, name)} for name in sorted({*record["outputs"], str(path)})]),
    }


def _references(entities: Iterable[Entity]) -> Entity | list[Entity]:
    return _compact([{"@id": entity["@id"]} for entity in entities])


def _compact(values: list[Entity]) -> Entity | list[Entity]:
    """RO-Crate wants a list of one to be written as the one."""
    return values[0] if len(values) == 1 else values


def _place(folder: Path, path: str) -> str:
    """Path relative to the crate, as a URI."""
    from urllib.parse import quote

    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
