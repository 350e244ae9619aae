"""The jobs that ran: many run records, summed up."""

from collections.abc import Mapping, Sequence
from typing import Any

from leakpipe.errors import LeakpipeError


def summarize_runs(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up run records.

    Returns:
        By rule `jobs`, `seconds` together, `longest` of one and `peak_memory_mib`; `total_seconds` of all jobs;
        `started` of the first and the last; `peak_memory_mib` of the largest; and each different `commit`,
        `system`, `python`, `processor` (with cores) and package version ("torch 2.11.0"), sorted: more than one
        where jobs differ.
    """
    if not records:
        raise LeakpipeError("there are no run records to report on")
    environments = [record["environment"] for record in records]
    rules: dict[str, dict[str, float]] = {}
    for record in records:
        entry = rules.setdefault(record["rule"], {"jobs": 0, "seconds": 0.0, "longest": 0.0, "peak_memory_mib": 0.0})
        environment = record["environment"]
        entry["jobs"] += 1
        entry["seconds"] += environment["seconds"]
        entry["longest"] = max(entry["longest"], environment["seconds"])
        entry["peak_memory_mib"] = max(entry["peak_memory_mib"], environment["peak_memory_mib"])
    return {
        "rules": dict(sorted(rules.items())),
        "jobs": len(records),
        "total_seconds": sum(entry["seconds"] for entry in rules.values()),
        "first": min(environment["started"] for environment in environments)[:16].replace("T", " "),
        "last": max(environment["started"] for environment in environments)[:16].replace("T", " "),
        "peak_memory_mib": max(environment["peak_memory_mib"] for environment in environments),
        "commits": _distinct(environment["commit"] for environment in environments),
        "uncommitted_changes": any(environment["uncommitted_changes"] for environment in environments),
        "machines": _distinct(
            f"{environment['processor']}, {environment['cores']} cores, {environment['system']}"
            for environment in environments
        ),
        "python": _distinct(environment["python"] for environment in environments),
        "packages": _distinct(
            f"{name} {found}" for environment in environments for name, found in environment["versions"].items()
        ),
    }


def _distinct(values: Any) -> list[str]:
    return sorted({str(value) for value in values if value is not None})
