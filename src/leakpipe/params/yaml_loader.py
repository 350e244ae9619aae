"""YAML that means the same to everybody who reads it: `leakpipe check`, Snakemake's rules, DVC.

DVC reads YAML 1.2, PyYAML reads 1.1. They differ on words such as `yes`, on numbers such as 017 and 1:30, and on 1e-3,
which PyYAML takes for text. Here 1e-3 is a number, as `dvc exp run --set-param` writes it, and what else they differ on
is refused. So are halves of characters, and a key that stands twice, of which PyYAML silently takes the last.
"""

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

TAG = "tag:yaml.org,2002:"
MOST_DIGITS = 300  # of a whole number
EXPONENT = re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$")
SURROGATE = re.compile("[\ud800-\udfff]")  # JSON escapes characters beyond U+FFFF as two of them, YAML does not
AMBIGUOUS = re.compile(
    r"(?i:yes|no|on|off)"
    r"|[-+]?0[0-9_]+|[-+]?0o[0-7_]+"  # octal in one of them
    r"|[-+][._][0-9._]*([eE][-+]?\d+)?|\._[0-9_]*|\.\d+[eE]\d+"  # a number in one of them
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"  # to the base of sixty in 1.1
)


class Loader(yaml.SafeLoader):
    """Reads one document of mappings, lists, text, numbers, true, false and null."""

    # A date is text, as in JSON.
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own form
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_scalar_node(self, anchor: Any) -> ScalarNode:
        """Refuses a plain scalar that versions of YAML read differently."""
        plain = self.peek_event().implicit[0]  # type: ignore[no-untyped-call]
        node: ScalarNode = super().compose_scalar_node(anchor)
        if plain and AMBIGUOUS.fullmatch(node.value):
            raise _refusal(
                node,
                f"{_shown(node)} means different things in YAML 1.1 and 1.2; "
                "write true, false or a decimal number, or put it in quotes",
            )
        if SURROGATE.search(node.value):
            raise _refusal(
                node, f"{_shown(node)} has half a character (\\ud800 to \\udfff); write the character itself"
            )
        if node.tag == f"{TAG}int" and len(node.value) > MOST_DIGITS:  # nor could Python always show it
            raise _refusal(node, f"{_shown(node)} is larger than floating-point numbers can be")
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Refuses keys that are no text, and those that stand twice."""
        node: MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag not in (f"{TAG}str", f"{TAG}merge"):
                raise _refusal(key, f"the key {_shown(key)} is no text; put it in quotes")
            if key.value in lines:
                raise _refusal(key, f"the key {_shown(key)} stands here and in line {lines[key.value]}; remove one")
            lines[key.value] = key.start_mark.line + 1
        return node


Loader.add_implicit_resolver(f"{TAG}float", EXPONENT, list("-+0123456789"))


def _shown(node: Node) -> str:
    return repr(node.value[:40]) if isinstance(node, ScalarNode) else "[…]"


def _refusal(node: Node, why: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {node.start_mark.line + 1}: {why}")
