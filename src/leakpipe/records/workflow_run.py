"""Snakemake's part of the RO-Crate: workflow, steps and tools, and the step that each job was.

Provenance Run Crate 0.5 (https://w3id.org/ro/wfrun/provenance/0.5): the workflow has a step for every kind of job, a
step is done by a tool (a command of leakpipe), and an engine controls the jobs. What a job read and wrote is in its own
action, which `leakpipe.records.crate` describes.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from leakpipe import __version__

Entity = dict[str, Any]

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
LANGUAGE, ENGINE, RUN, ORCHESTRATION = f"{WORKFLOW_CRATE}#snakemake", "#snakemake", "#run", "#orchestration"
SNAKEMAKE = "https://snakemake.github.io"
COMPLETED = "http://schema.org/CompletedActionStatus"


def tool(rule: str) -> Entity:
    """Returns the reference to the command that does the jobs of a rule."""
    return {"@id": f"#leakpipe-{rule}"}


def describe_workflow(file: Entity, rules: Iterable[str], **properties: Any) -> list[Entity]:
    """Returns the entities of the workflow: its file, language, steps, tools and profiles.

    Args:
        file: Entity of the Snakefile, which becomes the workflow.
        rules: What the jobs ran, in the order of their first start; repetitions count once.
        properties: Licence and author of workflow and tools.
    """
    kinds = list(dict.fromkeys(rules))
    steps = [
        {"@id": f"#step-{rule}", "@type": "HowToStep", "name": rule, "position": str(number), "workExample": tool(rule)}
        for number, rule in enumerate(kinds, start=1)
    ]
    tools = [
        {
            **tool(rule),
            "@type": "SoftwareApplication",
            "name": f"leakpipe {rule.replace('_', '-')}",
            "softwareVersion": __version__,
            **properties,
        }
        for rule in kinds
    ]
    workflow = {
        **file,
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": "leakpipe",
        "version": __version__,
        "conformsTo": {"@id": BIOSCHEMAS},
        "programmingLanguage": {"@id": LANGUAGE},
        "hasPart": [{"@id": each["@id"]} for each in tools],
        "step": [{"@id": each["@id"]} for each in steps],
        **properties,
    }
    snakemake = {"name": "Snakemake", "url": {"@id": SNAKEMAKE}}
    return [
        workflow,
        {"@id": LANGUAGE, "@type": "ComputerLanguage", "identifier": {"@id": SNAKEMAKE}, **snakemake},
        {"@id": ENGINE, "@type": "SoftwareApplication", "softwareVersion": version("snakemake"), **snakemake},
        *tools,
        *steps,
        *(
            {"@id": place, "@type": "CreativeWork", "name": name, "version": number}
            for place, (name, number) in PROFILES.items()
        ),
        {"@id": BIOSCHEMAS, "@type": "CreativeWork", "name": "Bioschemas ComputationalWorkflow", "version": "1.0"},
    ]


def describe_run(workflow: Entity, jobs: Mapping[str, Entity], params: Entity, products: list[Entity]) -> list[Entity]:
    """Returns the actions of a run: the run as a whole, its orchestration, and the control of each job.

    Args:
        workflow: What `describe_workflow` returned first.
        jobs: Action of each job, by the id of the action; each has a `name` that begins with its rule.
        params: Reference to the file of the parameters.
        products: References to what the run made that no job read.
    """
    started = min(action["startTime"] for action in jobs.values())
    ended = max(action["endTime"] for action in jobs.values())
    controls = [
        {
            "@id": f"#control-{name.removeprefix('#')}",
            "@type": "ControlAction",
            "name": f"{action['name']}, by Snakemake",
            "instrument": {"@id": f"#step-{action['name'].split()[0]}"},
            "object": {"@id": name},
            "actionStatus": COMPLETED,
        }
        for name, action in jobs.items()
    ]
    whole = {"startTime": started, "endTime": ended, "actionStatus": COMPLETED}
    return [
        {
            "@id": RUN,
            "@type": "CreateAction",
            "name": "The run",
            "description": "All jobs, from the first start to the last end; they may be of several calls of Snakemake.",
            "instrument": {"@id": workflow["@id"]},
            "object": params,
            "result": products,
            **whole,
        },
        {
            "@id": ORCHESTRATION,
            "@type": "OrganizeAction",
            "name": "Its orchestration",
            "instrument": {"@id": ENGINE},
            "object": [{"@id": each["@id"]} for each in controls],
            "result": {"@id": RUN},
            **whole,
        },
        *controls,
    ]
