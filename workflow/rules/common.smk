# For all rules: the checked parameters, the cells of the design, where files are, how to call the CLI.

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from leakpipe.attacks.presets import resolve_settings, resolve_threat_model
from leakpipe.records.code_version import code_version
from leakpipe.data.datalists import find_datalists
from leakpipe.data.datasets import DATASETS
from leakpipe.errors import LeakpipeError
from leakpipe.experiment import attacked_clients, group_cells, list_cells, parse_params
from leakpipe.attacks.progress import CHECKPOINTS_FOLDER
from leakpipe.models.catalog import require_model_weights
from leakpipe.models.weights import require_weights

try:
    PARAMS = parse_params(config, source=" + ".join(dict.fromkeys(map(os.path.relpath, workflow.configfiles))))
except LeakpipeError as error:
    raise WorkflowError(str(error)) from None
validate(config, workflow.source_path("../schemas/params.schema.json"), set_default=False)

# `leakpipe` is found without activating the environment that Snakemake runs in.
shell.prefix(f"export PATH='{Path(sys.executable).parent}':\"$PATH\"; ")

EXPERIMENT = PARAMS.experiment
CELLS = list_cells(PARAMS)
CELLS_OF = group_cells(CELLS)
ROUNDS = PARAMS.federation.captured_rounds
ATTACKED = attacked_clients(PARAMS)

RESULTS = f"results/{EXPERIMENT}"
FEDERATION = f"{RESULTS}/federation/{{defense}}/seed{{seed}}"
INVERSION = f"{RESULTS}/inversion/{{defense}}/seed{{seed}}"
IMAGES = f"{RESULTS}/data/images.safetensors"
DATALISTS = find_datalists(PARAMS.data)
SPLIT = f"{RESULTS}/data/seed{{seed}}/split.json"
PRIOR = f"{RESULTS}/data/seed{{seed}}/prior.safetensors"
GLOBAL_MODEL = f"{FEDERATION}/round{{round}}/global.safetensors"
UPDATE = f"{FEDERATION}/round{{round}}/{{client}}/update.safetensors"
RECONSTRUCTION = f"{INVERSION}/round{{round}}/{{client}}/{{attack}}.safetensors"
ACCURACY = f"{FEDERATION}/accuracy.csv"
SCORE = f"{RESULTS}/scores/{{defense}}/{{attack}}.csv"
RECORD = f"{RESULTS}/records"
LOG = f"logs/{EXPERIMENT}"
BENCHMARK = f"benchmarks/{EXPERIMENT}"
CHECKPOINTS = f"{CHECKPOINTS_FOLDER}/{EXPERIMENT}"  # of attacks that run; Snakemake deletes what failed jobs leave


# Before the first job, and not in a dry run: experiments can be looked at where published weights are not.
onstart:
    try:
        require_model_weights(PARAMS.model)
        require_weights(PARAMS.identifiability.embedders, field="identifiability.embedders")
    except LeakpipeError as error:
        raise WorkflowError(str(error)) from None
    # The limit of jobs per second makes every job that ends wake the scheduler once a second ever after: after fifty
    # jobs that takes most of a core. There is nothing to limit where jobs run here.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


wildcard_constraints:
    seed=r"\d+",
    round=r"\d+",
    defense="|".join(map(re.escape, PARAMS.defenses)),
    client="|".join(map(re.escape, PARAMS.federation.clients)),
    attack="|".join(map(re.escape, PARAMS.attacks)),


def granted_to(attack):
    """The threat model of one attack."""
    return resolve_threat_model(PARAMS.attacks[attack], PARAMS.threat_model)


def to_json(section):
    """A section of the parameters (or several by name, or a list of them) as JSON for the command line."""
    return json.dumps(section, default=lambda model: model.model_dump(mode="json"))


def flags(option, values):
    """`--option a --option b`, for an option that is given once per value."""
    return [part for value in values for part in (option, str(value))]


def options(values):
    """`--name value` for each; an option whose value is a list is given once per part."""
    parts = {name: [value] if isinstance(value, (str, int)) else value for name, value in values.items()}
    return [option for name, value in parts.items() for option in flags(f"--{name}", value)]


def labels(**values):
    """What a job is for, for its run record."""
    return flags("--label", [f"{name}={value}" for name, value in {"experiment": EXPERIMENT, **values}.items()])


def label_wildcards(wildcards):
    """`labels` of a job that is identified by its wildcards."""
    return labels(**dict(wildcards.items()))


def sidecars(paths):
    """The JSON beside each safetensors file."""
    return [f"{path.removesuffix('.safetensors')}.json" for path in ([paths] if isinstance(paths, str) else paths)]


def memory_mb(base):
    """Memory of a job that needs `base` MB and holds the data set, a copy of it and its file's bytes."""
    contents = DATASETS[PARAMS.data.dataset].contents(PARAMS.data)
    values = contents.images * contents.channels * PARAMS.data.image_size**2 if contents else 0
    return base + 3 * 4 * values // 1_000_000


def in_captured_rounds(path):
    """`path` for every captured round; other wildcards stay."""
    return expand(path, round=ROUNDS, allow_missing=True)


def in_cells(path, chosen):
    """`path` for every captured round of the cells; a tenth of the time that `expand` takes."""
    return [path.format(round=number, **vars(cell)) for cell in chosen for number in ROUNDS]


def in_scored_cells(path, wildcards):
    """`path` for every captured round of every cell of one attack under one defence."""
    return in_cells(path, CELLS_OF[wildcards.defense, wildcards.attack])


def reconstructions_to_score(wildcards):
    """All reconstructions of one attack under one defence."""
    return in_scored_cells(RECONSTRUCTION, wildcards)


def splits_to_score(wildcards):
    """The splits of the seeds that one attack was run on under one defence."""
    seeds = {cell.seed for cell in CELLS_OF[wildcards.defense, wildcards.attack]}
    return expand(SPLIT, seed=sorted(seeds))


def models_to_identify(wildcards):
    """The global model that each of `reconstructions_to_score` was attacked at, if an embedder needs it."""
    needed = "global-model" in PARAMS.identifiability.embedders
    return in_scored_cells(GLOBAL_MODEL, wildcards) if needed else []


def shown(path, table):
    """An output that `snakemake --report` shows among the tables, under the name `table`."""
    return report(path, caption="../report/table.rst", category="Tables", labels={"table": table})


def count_attempts(tracked):
    """Number of this attempt: the one that reached MLflow (so nothing re-runs), else one more than the last."""
    if not Path(tracked).is_file():
        return 0
    last = json.loads(Path(tracked).read_text(encoding="utf-8"))
    return last["attempt"] if last["reached"] else last["attempt"] + 1
