"""Names of tensors, whatever wrapped the network that they come from: DataParallel, Opacus, `torch.compile`, Lightning.

A wrapper adds a prefix to every name ("module.", "_module.", "model."), and some stand inside a name
("encoder._orig_mod.conv.weight"). The network at hand may have a prefix of its own that a file lacks.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

# What says nothing about a tensor's place: kinds in leakpipe's own files, and wrappers around any part of a network.
TRANSPARENT = re.compile(r"^(weights|statistics)/|(?<![^.])_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")
OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # names in torchvision's published file
WRAPPERS = frozenset({"module", "_module", "model", "net", "network", "pre"})


def align_names(found: Iterable[str], expected: Collection[str]) -> tuple[dict[str, str], str]:
    """Recognises the tensors of a network under the names that wrappers gave them.

    Of all prefixes, the one that recognises the most tensors is taken; among equals, one that is made of known wrappers
    (`WRAPPERS`), then the shortest.

    Args:
        found: Names in a file, or of a wrapped module.
        expected: Names that the network has.

    Returns:
        The name in `found` by the name in `expected`, for those that are recognised; and the prefix that `found` has
        ("module.", "" for none).
    """
    ours = {_plain(name): name for name in expected}
    theirs = {_plain(name): name for name in found}
    best: tuple[int, bool, int] = (0, True, 0)
    aligned: dict[str, str] = {}
    taken = ""
    for own in _common_prefixes(ours):
        for prefix in _prefixes_of(theirs, ours, own):
            pairs = {
                full: theirs[prefix + name.removeprefix(own)]
                for name, full in ours.items()
                if prefix + name.removeprefix(own) in theirs
            }
            rank = (len(pairs), set(prefix.split(".")[:-1]) <= WRAPPERS, -len(prefix))
            if rank > best:
                best, aligned, taken = rank, pairs, prefix
    return aligned, taken


def _plain(name: str) -> str:
    return OLD_DENSE_LAYER.sub(r"\1\2.", TRANSPARENT.sub("", name))


def _common_prefixes(names: Mapping[str, str]) -> Iterator[str]:
    """Yields the dotted prefixes that all names share, the empty one first."""
    prefix = ""
    yield prefix
    for part in min(names, default="").split(".")[:-1]:
        prefix += f"{part}."
        if not all(name.startswith(prefix) for name in names):
            return
        yield prefix


def _prefixes_of(theirs: Mapping[str, str], ours: Mapping[str, str], own: str) -> set[str]:
    """Returns what stands before one of our names in one of theirs."""
    ends = {name.removeprefix(own) for name in ours}
    return {name[: -len(end)] for name in theirs for end in _ends_of(name) if end in ends}


def _ends_of(name: str) -> Iterator[str]:
    """Yields a name, then the same without its first part, and so on."""
    while name:
        yield name
        name = name.partition(".")[2]
