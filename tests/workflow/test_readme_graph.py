"""The README's diagram is the pipeline's own rule graph (`--fix` draws it)."""

import re

import pytest

from tests.conftest import PROJECT
from tests.workflow.conftest import kind_of, snakemake

README = PROJECT / "README.md"
BLOCK = re.compile(r"(<!-- rulegraph: .*? -->\n).*?(<!-- /rulegraph -->)", flags=re.DOTALL)


def draw() -> str:
    """Mermaid of the rule graph: stages in the order data flows, arrows that others imply left out."""
    done = snakemake(PROJECT, "--rulegraph", "--nolock")
    assert done.returncode == 0, done.stderr
    nodes = re.findall(r'^\s*(\d+)\[label = "([\w-]+)"', done.stdout, flags=re.MULTILINE)
    names = {number: kind_of(rule) for number, rule in nodes}
    edges = {(names[a], names[b]) for a, b in re.findall(r"^\s*(\d+) -> (\d+)", done.stdout, flags=re.MULTILINE)}
    assert ("federate", "invert") in edges
    arrows = [f"  {a} --> {b}" for a, b in sorted(edges) if b not in ("all", "default") and not implied(a, b, edges)]
    return "```mermaid\nflowchart LR\n" + "\n".join(arrows) + "\n```\n"


def implied(start: str, end: str, edges: set[tuple[str, str]]) -> bool:
    """Tells whether a longer path leads from start to end."""
    waiting = [b for a, b in edges if a == start and b != end]
    while waiting:
        here = waiting.pop()
        if here == end:
            return True
        waiting += [b for a, b in edges if a == here]
    return False


def test_the_readmes_diagram_is_the_rule_graph(request: pytest.FixtureRequest) -> None:
    text = README.read_text()
    fresh = BLOCK.sub(lambda match: match[1] + draw() + match[2], text)
    if request.config.getoption("--fix"):
        README.write_text(fresh)
    assert README.read_text() == fresh, "run: pytest tests/workflow/test_readme_graph.py --fix"
