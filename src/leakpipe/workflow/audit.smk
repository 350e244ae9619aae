# The audit of captured updates: `leakpipe audit audit.yaml` plans it and calls Snakemake on this file.
# Inputs:  plan.json (parameters, attacks, defences), the captured files and folders of images that it names
# Outputs: results/audit/<audit>/: updates, reconstructions, assessment.json, attempts.csv, report.html, summary

import json
import sys
from functools import cache
from pathlib import Path

from snakemake.utils import min_version

from leakpipe.files.quoting import for_shell, for_snakemake
from leakpipe.records.code_version import code_version

min_version("9.18")

code_version = cache(code_version)

shell.prefix(for_snakemake(f'export PATH={for_shell(str(Path(sys.executable).parent))}:"$PATH"; '))

AUDIT = config["audit"]
RESULTS = f"results/audit/{AUDIT['audit']}"
PLAN = f"{RESULTS}/plan.json"
FOLDER = f"{RESULTS}/updates/{{captured}}"
RECONSTRUCTION = f"{RESULTS}/reconstructions/{{captured}}/{{defense}}/{{attack}}.safetensors"
READ_RECORD = f"{RESULTS}/records/read_update/{{captured}}.json"
DEFEND_RECORD = f"{RESULTS}/records/defend_update/{{captured}}.json"
ATTACK_RECORD = f"{RESULTS}/records/invert/{{captured}}/{{defense}}/{{attack}}.json"
LOG = f"logs/audit/{AUDIT['audit']}"
CELLS = [
    {"captured": captured, "defense": defense, "attack": attack}
    for captured, cells in config["cells"].items()
    for defense, attacks in cells.items()
    for attack in attacks
]
PRODUCTS = [
    f"{RESULTS}/{name}" for name in ("report.html", "summary.png", "summary.pdf", "assessment.json", "attempts.csv")
]
CLIENTS = [AUDIT["client"], *AUDIT["clients"].values()]


wildcard_constraints:
    captured=r"[^/]+",
    defense=r"[^/]+",
    attack=r"[^/]+",


def images_of(*folders):
    """All files in folders, None left out."""
    return sorted(str(path) for folder in folders if folder for path in Path(folder).rglob("*") if path.is_file())


def to_read(captured):
    """Returns what reading one update depends on: not on truth, candidates, minutes or other updates."""
    files = AUDIT["updates"][captured]
    client = AUDIT["clients"].get(files["client"], AUDIT["client"])
    kept = {name: AUDIT[name] for name in ("audit", "network", "images", "training", "defense", "public")}
    return {**kept, "updates": {captured: files}, "client": {**client, "truth": None}}


def options(values):
    """`--name value` for each."""
    return [part for name, value in values.items() for part in (f"--{name}", value)]


def of_updates(path):
    """`path` for every update."""
    return [path.format(captured=name) for name in AUDIT["updates"]]


def of_cells(path):
    """`path` for every update, defence and attack."""
    return [path.format(**cell) for cell in CELLS]


def of_attack(field):
    """A field of the planned attack of a job, as JSON."""
    return lambda w: json.dumps(config["cells"][w.captured][w.defense][w.attack][field])


rule all:
    default_target: True
    input:
        PRODUCTS,
        f"{RESULTS}/tracked.json",


rule read_update:
    input:
        files=lambda w: [path for name, path in AUDIT["updates"][w.captured].items() if path and name != "client"],
        network=lambda w: config["network_source"],
        images=lambda w: images_of(AUDIT["public"]),
    output:
        model=f"{FOLDER}/global.safetensors",
        prior=f"{FOLDER}/prior.safetensors",
        sent=f"{FOLDER}/as-sent/update.safetensors",
        record=READ_RECORD,
    log:
        f"{LOG}/read_update/{{captured}}.log",
    threads: 1
    resources:
        mem_mb=2000,
    params:
        audit=lambda w: json.dumps(to_read(w.captured)),
        folder=FOLDER,
        experiment=AUDIT["audit"],
        code=code_version("leakpipe.cli.read_update"),
    shell:
        """
        leakpipe read-update \
            --audit {params.audit:q} \
            --update {wildcards.captured:q} \
            --out-dir {params.folder:q} \
            --record {output.record:q} \
            --label experiment={params.experiment:q} \
            --label client={wildcards.captured:q} \
            2>{log:q}
        """


if config["what_if"]:

    rule defend_update:
        input:
            model=f"{FOLDER}/global.safetensors",
            sent=f"{FOLDER}/as-sent/update.safetensors",
            prior=f"{FOLDER}/prior.safetensors",
            images=lambda w: images_of(AUDIT["public"]),
        output:
            defended=[f"{FOLDER}/{name}/update.safetensors" for name in config["what_if"]],
            record=DEFEND_RECORD,
        log:
            f"{LOG}/defend_update/{{captured}}.log",
        threads: 1
        resources:
            mem_mb=2000,
        params:
            audit=lambda w: json.dumps(to_read(w.captured)),
            what_if=json.dumps(config["what_if"]),
            folder=FOLDER,
            experiment=AUDIT["audit"],
            code=code_version("leakpipe.cli.defend_update"),
        shell:
            """
            leakpipe defend-update \
                --audit {params.audit:q} \
                --what-if {params.what_if:q} \
                --dir {params.folder:q} \
                --record {output.record:q} \
                --label experiment={params.experiment:q} \
                --label client={wildcards.captured:q} \
                2>{log:q}
            """


rule invert:
    input:
        model=f"{FOLDER}/global.safetensors",
        shared=f"{FOLDER}/{{defense}}/update.safetensors",
        prior=f"{FOLDER}/prior.safetensors",
    output:
        images=RECONSTRUCTION,
        record=ATTACK_RECORD,
    log:
        f"{LOG}/invert/{{captured}}/{{defense}}/{{attack}}.log",
    threads: 1
    resources:
        mem_mb=3000,
    params:
        settings=of_attack("settings"),
        granted=lambda w: json.dumps(config["granted"][w.captured]),
        defense=lambda w: json.dumps([*AUDIT["defense"], *config["what_if"].get(w.defense, [])]),
        network=options({"network": AUDIT["network"]["factory"]} if AUDIT["network"]["factory"] else {}),
        checkpoints=f".leakpipe/checkpoints/audit/{AUDIT['audit']}/{{captured}}/{{defense}}/{{attack}}",
        experiment=AUDIT["audit"],
        code=code_version("leakpipe.cli.invert"),
    shell:
        """
        leakpipe invert \
            --attack {params.settings:q} \
            --name {wildcards.attack:q} \
            --threat-model {params.granted:q} \
            --defense {params.defense:q} \
            {params.network:q} \
            --global-model {input.model:q} \
            --update {input.shared:q} \
            --prior {input.prior:q} \
            --out {output.images:q} \
            --checkpoints {params.checkpoints:q} \
            --threads {threads} \
            --record {output.record:q} \
            --label experiment={params.experiment:q} \
            --label defense={wildcards.defense:q} \
            --label client={wildcards.captured:q} \
            2>{log:q}
        """


rule assess:
    input:
        reconstructions=of_cells(RECONSTRUCTION),
        records=of_cells(ATTACK_RECORD),
        read=of_updates(READ_RECORD),
        images=lambda w: images_of(AUDIT["candidates"], *(each["truth"] for each in CLIENTS)),
        plan=PLAN,
    output:
        PRODUCTS,
        record=f"{RESULTS}/records/assess.json",
    log:
        f"{LOG}/assess.log",
    threads: 1
    resources:
        mem_mb=3000,
    params:
        patterns=lambda w: options(
            {
                "updates": FOLDER,
                "reconstruction": RECONSTRUCTION,
                "attack-record": ATTACK_RECORD,
                "read-record": READ_RECORD,
            }
        ),
        folder=RESULTS,
        experiment=AUDIT["audit"],
        code=code_version("leakpipe.cli.assess"),
    shell:
        """
        leakpipe assess \
            --plan {input.plan:q} \
            {params.patterns:q} \
            --out-dir {params.folder:q} \
            --record {output.record:q} --label experiment={params.experiment:q} \
            2>{log:q}
        """


rule track:
    input:
        read=of_updates(READ_RECORD),
        defended=of_updates(DEFEND_RECORD) if config["what_if"] else [],
        attacks=of_cells(ATTACK_RECORD),
        assess=f"{RESULTS}/records/assess.json",
        metrics=f"{RESULTS}/assessment.json",
        artifacts=[path for path in PRODUCTS if not path.endswith("assessment.json")],
    output:
        f"{RESULTS}/tracked.json",
    log:
        f"{LOG}/track.log",
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
    params:
        experiment=f"audit-{AUDIT['audit']}",
        audit=lambda w: json.dumps(AUDIT),
        artifacts=lambda w, input: [part for path in input.artifacts for part in ("--artifact", path)],
        code=code_version("leakpipe.cli.track"),
    shell:
        """
        leakpipe track {input.read:q} {input.defended:q} {input.attacks:q} {input.assess:q} \
            --experiment {params.experiment:q} \
            --params {params.audit:q} \
            --metrics {input.metrics:q} \
            {params.artifacts:q} \
            --best-effort \
            --out {output:q} \
            2>{log:q}
        """
