"""The results of an experiment as an RO-Crate: every file, the job that made it, licences, works to cite.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) with the Provenance Run Crate profile 0.5
(https://w3id.org/ro/wfrun/provenance/0.5): each job is a `CreateAction` from the files that it read to those that it
wrote, by the command that did it; `leakpipe.records.workflow_run` describes the workflow that called it. Digests come
from the run records, so that the crate lists what the jobs left, not what is there now.

The package `rocrate` 0.16 would save the frame and the references, 25 of these lines; the mapping from run records
would stay. It costs 0.3 s of import and 11 MB.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from leakpipe import __version__
from leakpipe.data.images import Dataset
from leakpipe.errors import LeakpipeError
from leakpipe.files.log import hash_file
from leakpipe.records.workflow_run import (
    COMPLETED,
    ORCHESTRATION,
    PROFILES,
    RUN,
    WORKFLOW_CRATE,
    describe_run,
    describe_workflow,
    tool,
)

CRATE = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
CONTEXT = [f"{SPECIFICATION}/context", "https://w3id.org/ro/terms/workflow-run/context"]
FORMATS = {
    "": "text/plain",  # Snakefile
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


def build_crate(
    folder: Path,
    records: Mapping[Path, Record],
    params: Path,
    workflow: Path,
    *,
    data: tuple[str, Dataset],
    citation: Mapping[str, Any],
) -> Entity:
    """Returns the content of `ro-crate-metadata.json` for the results in `folder`; the same for the same records.

    Args:
        folder: The crate's root: results/<experiment>.
        records: Run records of all jobs, by path.
        params: File of the parameters, in `folder`.
        workflow: The Snakefile, in `folder`.
        data: Name of the data set, and its entry.
        citation: Content of CITATION.cff: title, authors, licence and references of the software.

    Raises:
        LeakpipeError: A record names an output that does not exist.
    """
    digests = {str(path): hash_file(path) for path in (params, workflow)}
    for path, record in records.items():
        digests |= {str(path): hash_file(path), **record["outputs"]}
    files = {path: _file(folder, path, sha256) for path, sha256 in sorted(digests.items())}
    actions = [_action(folder, path, record) for path, record in records.items()]
    actions.sort(key=lambda action: (action["startTime"], action["@id"]))
    authors = [_author(author) for author in citation["authors"]]
    works = [_work(work) for work in citation.get("references", ())]
    packages = sorted({item for record in records.values() for item in record["environment"]["versions"].items()})
    required = [
        _entity(f"#{name}-{version}", "SoftwareApplication", name, softwareVersion=version)
        for name, version in packages
        if name != "leakpipe"
    ]
    licence = f"https://spdx.org/licenses/{citation['license']}"
    ours = {"license": {"@id": licence}, "author": _refer(authors)}
    described = describe_workflow(files.pop(str(workflow)), [action["name"].split()[0] for action in actions], **ours)
    read = {name for record in records.values() for name in record["inputs"]}
    products = [file for path, file in files.items() if path not in {*read, str(params)}]
    jobs = {action["@id"]: action for action in actions}
    run = describe_run(described[0], jobs, {"@id": _place(folder, str(params))}, _references(products))
    name, entry = data
    root = _entity(
        "./",
        "Dataset",
        f"leakpipe experiment {folder.name}",
        description="Measured leakage of training images from federated learning: parameters, data, models, "
        "updates, reconstructions, tables, figures, report, and the run record of every job.",
        datePublished=max(action["endTime"] for action in actions),
        conformsTo=[{"@id": profile} for profile in PROFILES],
        license={"@id": LICENCE_OF_DATA},
        author=_refer(authors),
        isBasedOn={"@id": DATA_SET},
        mainEntity={"@id": described[0]["@id"]},
        hasPart=_references([described[0], *files.values()]),
        mentions=[*_references(actions), {"@id": RUN}, {"@id": ORCHESTRATION}],
    )
    software = _entity(
        SOFTWARE,
        "SoftwareApplication",
        citation["title"],
        softwareVersion=__version__,
        **ours,
        citation=_refer(works),
        softwareRequirements=_refer(required),
    )
    descriptor = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": [{"@id": SPECIFICATION}, {"@id": WORKFLOW_CRATE}],
    }
    graph = [
        descriptor,
        root,
        software,
        _entity(licence, "CreativeWork", citation["license"]),
        *(authors + works + required),
        _entity(
            DATA_SET,
            "Dataset",
            name,
            description=entry.source,
            creditText=entry.citation,
            license={"@id": LICENCE_OF_DATA},
        ),
        _entity(LICENCE_OF_DATA, "CreativeWork", entry.licence),
        *described,
        *run,
        *actions,
        *files.values(),
    ]
    return {"@context": CONTEXT, "@graph": graph}


def read_crate(content: Mapping[str, Any], root: Path) -> Iterator[tuple[str, str, int]]:
    """Yields name (below `root`), SHA-256 and bytes of every file that a crate lists.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: leakpipe did not write it.
    """
    for entity in content["@graph"]:
        if entity["@type"] == "File" or "ComputationalWorkflow" in entity["@type"]:
            yield os.path.normpath(root / unquote(entity["@id"])), entity["sha256"], int(entity["contentSize"])


def _entity(identifier: str, kind: str, name: str, **properties: Any) -> Entity:
    return {"@id": identifier, "@type": kind, "name": name, **properties}


def _author(author: Mapping[str, str]) -> Entity:
    """A person or an organisation of CITATION.cff."""
    kind = "Organization" if "name" in author else "Person"
    name = author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"
    return _entity(f"#{_slug(name)}", kind, name)


def _work(work: Mapping[str, Any]) -> Entity:
    """A reference of CITATION.cff."""
    names = ", ".join(_author(author)["name"] for author in work["authors"])
    place = f"https://doi.org/{work['doi']}" if "doi" in work else f"#{_slug(work['title'])}"
    credit = f"{names}: {work['title']}. {work['journal']}, {work['year']}."
    return _entity(place, "ScholarlyArticle", work["title"], creditText=credit)


def _file(folder: Path, path: str, sha256: str) -> Entity:
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise LeakpipeError(f"{path}: cannot be read: {error.strerror or error}; its run record lists it") from error
    entity = {"@id": _place(folder, path), "@type": "File", "contentSize": str(size), "sha256": sha256}
    kind = FORMATS.get(Path(path).suffix)
    return {**entity, "encodingFormat": kind} if kind else entity


def _action(folder: Path, path: Path, record: Record) -> Entity:
    """One job: what it read and wrote, when, with which code, on which machine."""
    environment = record["environment"]
    started = datetime.fromisoformat(environment["started"])
    ended = started + timedelta(seconds=environment["seconds"])
    labels = " ".join(f"{name}={value}" for name, value in record["labels"].items() if name != "experiment")
    changed = " with uncommitted changes" if environment["uncommitted_changes"] else ""
    inside = sorted(name for name in record["inputs"] if Path(name).is_relative_to(folder))
    return _entity(
        f"#{record['id']}",
        "CreateAction",
        f"{record['rule']} {labels}".strip(),
        description=f"commit {environment['commit']}{changed}, code {environment['code_version']}, parameters "
        f"{record['params_hash']}, {environment['processor']}, {environment['peak_memory_mib']} MiB",
        instrument=tool(record["rule"]),
        actionStatus=COMPLETED,
        startTime=started.isoformat(timespec="milliseconds"),
        endTime=ended.isoformat(timespec="milliseconds"),
        object=_compact([{"@id": _place(folder, name)} for name in inside]),
        result=_compact([{"@id": _place(folder, name)} for name in sorted({*record["outputs"], str(path)})]),
    )


def _refer(entities: Iterable[Entity]) -> Entity | list[Entity]:
    return _compact(_references(entities))


def _references(entities: Iterable[Entity]) -> list[Entity]:
    return [{"@id": entity["@id"]} for entity in entities]


def _compact(values: list[Entity]) -> Entity | list[Entity]:
    """A single value in place of a list of one, as RO-Crate wants it."""
    return values[0] if len(values) == 1 else values


def _place(folder: Path, path: str) -> str:
    """Path relative to the crate, as a URI."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
