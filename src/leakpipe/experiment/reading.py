"""From params.yaml to a checked experiment: reads the files, merges overlays, validates the whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leakpipe.attacks.budgets import RECORD, keep_budgets, read_record
from leakpipe.attacks.presets import PRESETS
from leakpipe.data.datasets import DATASETS
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.conflicts import find_conflicts
from leakpipe.models.catalog import MODELS
from leakpipe.params.attacks import RENAMED_PRESETS
from leakpipe.params.experiment import Params
from leakpipe.params.reading import InvalidError, merge, parse_section, read_yaml

# Names that params.yaml may use, by kind; those of renamed presets are read for one more release.
REGISTERED = {each.kind: [*each] for each in (DATASETS, MODELS, PRESETS)}
REGISTERED[PRESETS.kind] += RENAMED_PRESETS
BASE = Path("params.yaml")  # what overlays are merged into


def load_params(*paths: Path, changes: Mapping[str, Any] | None = None, timed: bool = True) -> Params:
    """Reads params.yaml and overlays on it (later ones override, mappings merge) and checks the whole.

    Args:
        paths: The files, in the order of merging.
        changes: What overrides the files (`snakemake --config`).
        timed: Whether budgets are turned into iterations, by the record in the current folder.

    Raises:
        LeakpipeError: A file is missing or is not YAML, or the experiment cannot be run.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, read_yaml(path))
    params = parse_params(merge(merged, changes or {}), source=" + ".join(map(str, paths)), files=paths)
    return keep_budgets(params, read_record(RECORD)) if timed else params


def parse_params(content: Mapping[str, Any], *, source: str, files: Sequence[Path] = ()) -> Params:
    """Validates merged parameters, first by themselves, then against data sets, models and presets.

    Args:
        content: The merged parameters.
        source: What was read.
        files: The files that were merged, in that order, for errors to name the one to edit.

    Raises:
        LeakpipeError: The experiment cannot be run; the error has one sentence for each reason.
    """
    required = [name for name, field in Params.model_fields.items() if field.is_required()]
    absent = [name for name in required if name not in content]
    if absent and content and len(files) == 1 and files[0].name != BASE.name:
        raise LeakpipeError(
            f"{source}: has no {', '.join(absent)}, expected a whole experiment; an overlay comes after {BASE}: "
            f"leakpipe check {BASE} {source}"
        )
    try:
        params = parse_section(Params, content, source=source, files=files, known=REGISTERED)
        problems = list(find_conflicts(params))
    except InvalidError:
        raise
    except LeakpipeError as error:
        raise LeakpipeError(f"{source}: {error}") from error
    if problems:
        raise InvalidError(problems, source=source, files=files)
    return params


def params_schema() -> dict[str, Any]:
    """Returns the JSON schema of params.yaml, with the registered names."""

    def fill(node: Any) -> Any:
        if isinstance(node, list):
            return [fill(each) for each in node]
        if not isinstance(node, dict):
            return node
        names = {"enum": REGISTERED[node["registry"]]} if isinstance(node.get("registry"), str) else {}
        return {key: fill(value) for key, value in node.items() if not (names and key == "registry")} | names

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **fill(Params.model_json_schema())}
