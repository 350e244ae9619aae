# For all rules: the checked parameters, the cells of the design, where files are, how to call the CLI.

import json
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from leakpipe.experiment import workload
from leakpipe.attacks.presets import PRESETS, resolve_settings, resolve_threat_model
from leakpipe.records.code_version import code_version
from leakpipe.data.datalists import find_datalists
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.cells import attacked_clients, captured_clients, group_cells, list_cells
from leakpipe.experiment.reading import load_params, parse_params
from leakpipe.attacks.progress import CHECKPOINTS_FOLDER
from leakpipe.files.quoting import for_shell, for_snakemake
from leakpipe.files.storage import read_json
from leakpipe.models.catalog import require_model_weights
from leakpipe.records.run_record import hash_params
from leakpipe.models.choices import weights_file
from leakpipe.models.weights import LPIPS, require_weights
from leakpipe.params.data import ImagesParams
from leakpipe.params.reading import read_yaml
from leakpipe.experiment.workload import FEDERATE_MB, INVERT_MB, split_into_jobs

try:
    # The Snakefile's own is the last that Snakemake names, and the first that it reads. Snakemake's `config` is not used:
    # its YAML is not that of `leakpipe check` and DVC, which read 1e-3 as a number.
    if re.search(r"\{\s*n\b", os.getcwd()):
        raise LeakpipeError(f"{os.getcwd()}: Snakemake cannot lock a folder with {{n}} in its name: rename it")
    if workflow.modifier.path_modifier.prefix:
        raise LeakpipeError(
            "module: prefix: expected none, because jobs name their files by patterns: set `experiment`"
        )
    if workflow.modifier.is_main_snakefile():
        PARAMETER_FILES = list(dict.fromkeys(map(os.path.relpath, [workflow.configfiles[-1], *workflow.configfiles])))
        PARAMS = load_params(*map(Path, PARAMETER_FILES), changes=workflow.config_settings.config)
    else:  # what the workflow that uses this module hands on
        PARAMETER_FILES, PARAMS = [], parse_params(config, source="config of the module")
except LeakpipeError as error:
    raise WorkflowError(str(error)) from None

code_version = cache(code_version)  # asked for by every job

# `leakpipe` is found without activating the environment that Snakemake runs in.
shell.prefix(for_snakemake(f'export PATH={for_shell(str(Path(sys.executable).parent))}:"$PATH"; '))

EXPERIMENT = PARAMS.experiment
# A preset fixes what is unset, so whole parameters are handed on without defaults, and these are tracked by a hash.
WHOLE_PARAMS = PARAMS.model_dump_json(exclude_unset=True)
VALUES_HASH = hash_params(PARAMS.model_dump(mode="json"))
CELLS = list_cells(PARAMS)
CELLS_OF = group_cells(CELLS)
ROUNDS = PARAMS.federation.captured_rounds
ATTACKED = attacked_clients(PARAMS)
CAPTURED = {defense: captured_clients(PARAMS, defense) for defense in PARAMS.defenses}

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
        require_weights(LPIPS if PARAMS.scoring.lpips else (), field="scoring.lpips")
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


def literally(value):
    """A param whose {…} are no wildcards: the user's own text, or what stands for the cells of a job."""
    return lambda wildcards: value


def labels(**values):
    """What a job is for, for its run record."""
    return flags("--label", [f"{name}={value}" for name, value in {"experiment": EXPERIMENT, **values}.items()])


def label_wildcards(wildcards):
    """`labels` of a job that is identified by its wildcards."""
    return labels(**dict(wildcards.items()))


def sidecars(paths):
    """The JSON beside each safetensors file. It has the SHA-256 of the tensors, so a rule that reads both names it."""
    return [f"{path.removesuffix('.safetensors')}.json" for path in ([paths] if isinstance(paths, str) else paths)]


def memory_mb(base):
    """Memory of a job that needs `base` MB and holds the data set."""
    return workload.memory_mb(PARAMS, base)


def in_captured_rounds(path):
    """`path` for every captured round; other wildcards stay."""
    return expand(path, round=ROUNDS, allow_missing=True)


def in_cells(path, chosen):
    """`path` for every captured round of the cells; a tenth of the time that `expand` takes."""
    return [path.format(round=number, **vars(cell)) for cell in chosen for number in ROUNDS]


FIRST = 1_000_000  # priority of what all others wait for


def group_by(cells, *names):
    """The cells by the values of some of their fields, in their order."""
    groups = {}
    for cell in cells:
        groups.setdefault(tuple(getattr(cell, name) for name in names), []).append(cell)
    return groups


def fill(paths, **values):
    """Replace `{name}` by its value in a path or a list of them; other wildcards stay."""
    if not isinstance(paths, str):
        return [fill(path, **values) for path in paths]
    for name, value in values.items():
        paths = paths.replace(f"{{{name}}}", str(value))
    return paths


def fill_each(paths, name, values):
    """`paths` for every value of one wildcard."""
    return [path for value in values for path in fill([paths] if isinstance(paths, str) else paths, **{name: value})]


def unique(values):
    """The values without repetitions, in their order."""
    return list(dict.fromkeys(values))


def granted(kind, **resources):
    """Resources of a job of a kind; `--set-resources <kind>:…` counts for all jobs of that kind, whatever their name."""
    asked = workflow.resource_settings.overwrite_resources.get(kind, {})
    return {**resources, **{name: value_of(resource) for name, resource in asked.items()}}


def value_of(resource):
    """A resource of the command line or profile, which may be an expression, as a rule takes it."""
    if not resource.is_evaluable():
        return resource.value
    context = ("input", "attempt", "threads", "rulename", "async_run")
    return lambda wildcards, input, attempt, threads, rulename, async_run: (
        resource.evaluate(wildcards, **dict(zip(context, (input, attempt, threads, rulename, async_run)))).value
    )


def each(name, values):
    """The cells of a job for its command line."""
    return flags("--each", [f"{name}={value}" for value in values])


def in_scored_cells(path, made_of):
    """`path` of every captured round of every (seed, client); defence and attack are left open."""
    return [fill(path, round=number, seed=seed, client=client) for seed, client in made_of for number in ROUNDS]


def fill_pairs(paths, pairs):
    """`paths` for every (defence, attack)."""
    return [path for defense, attack in pairs for path in fill(paths, defense=defense, attack=attack)]


def each_pair(pairs):
    """Tables of a job for its command line."""
    return flags("--each", [f"defense={defense},attack={attack}" for defense, attack in pairs])


def shown(path, table):
    """An output that `snakemake --report` shows among the tables, under the name `table`."""
    return report(path, caption="../report/table.rst", category="Tables", labels={"table": table})


def shown_figure(drawn, kind):
    """An output that `snakemake --report` shows among the figures."""
    return report(
        f"{FIGURE}/{drawn.name}.{kind}",
        caption="../report/figure.rst",
        category="Figures",
        labels={"figure": drawn.heading, "format": kind.upper()},
    )


def count_attempts(tracked):
    """Number of this attempt: the one that reached MLflow (so nothing re-runs), else one more than the last."""
    try:
        last = read_json(Path(tracked))
        return last["attempt"] if last["reached"] else last["attempt"] + 1
    except (LeakpipeError, KeyError, TypeError):  # none was made yet, or it is damaged
        return 0


def fetched(name):
    """A file of the project, which of a module may lie in a repository elsewhere."""
    return Path(workflow.sourcecache.get_path(PROJECT.join(name)))
