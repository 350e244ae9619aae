"""What each figure is called and shows, for the pages that list figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leakpipe.errors import LeakpipeError

EFFECT = "effect-"


@dataclass(frozen=True)
class Entry:
    """A figure's heading, and what it shows in a sentence or two; its own caption has the numbers."""

    heading: str
    about: str


ENTRIES = {
    "overview": Entry(
        "Which training images leaked",
        "The training images of all clients of one draw, framed and numbered by how much SSIM the attack gained over "
        "the prior image; pale where a client was not attacked.",
    ),
    "reconstructions": Entry(
        "What the attack rebuilds",
        "Training images beside the prior image that the attack starts from and what it rebuilds under each defence. A "
        "picture that looks like its original was leaked by one shared update.",
    ),
    "maps": Entry(
        "Where in an image the leak is",
        "Original, prior image, reconstruction, and the local SSIM that the attack gained over the prior: orange where "
        "it shows more of the image, blue where less.",
    ),
    "rounds": Entry(
        "Leakage by round",
        "RDLV and gain in SSIM of each client in each captured round; other attacks are dashed. Above 0 an attack told "
        "more about an image than the prior did: that much leaked.",
    ),
    "noise": Entry(
        "What noise hides, and what it costs",
        "RDLV and, below it, test accuracy against the noise multiplier σ0, beside the paper's values on another data "
        "set. Where a line has come down to 0, that noise hides the client's images.",
    ),
    "clients": Entry(
        "Leakage by images, batch size and local steps",
        "Leakage of each client against the number of its images, its batch size and its local steps in a round.",
    ),
    "identifiability": Entry(
        "Which image it is",
        "Share of reconstructions whose nearest image, among the training images of all clients, is the one that they "
        "came from; hollow for the prior image, a gray band for chance.",
    ),
    "tradeoff": Entry(
        "Privacy against accuracy",
        "Leakage of the client that leaks most against test accuracy, a point per defence; down and right is better.",
    ),
    "front": Entry(
        "Which defence to switch on",
        "RDLV of the high-risk client, by attacks told the defence and by others, against test accuracy, a point per "
        "defence; below 0 the defence hides, a diamond has a guarantee.",
    ),
    "bound": Entry(
        "What privacy promises",
        "Share of recognised images under defences with differential privacy, against ε, below the most that any "
        "attack can reach.",
    ),
    "attacks": Entry(
        "Attacks by wall time",
        "Mean SSIM of the reconstructed images against the wall time of each attack, a panel per client and captured "
        "round; up and left is better.",
    ),
}


def list_figures(chosen: Sequence[str], comparisons: Mapping[str, Any]) -> list[str]:
    """Names of the files to draw: as the parameters choose them, with one for each comparison in place of `effects`.

    Args:
        chosen: The `figures` section of the parameters.
        comparisons: The `comparisons` section, by name.
    """
    effects = [EFFECT + name for name in comparisons]
    return [name for entry in chosen for name in (effects if entry == "effects" else [entry])]


def describe_figure(name: str, comparisons: Mapping[str, Any]) -> Entry:
    """Heading and description of a figure; those of a comparison come from the parameters.

    Args:
        name: As `list_figures` gives it.
        comparisons: The `comparisons` section, by name, as plain mappings.

    Raises:
        LeakpipeError: There is no such figure.
    """
    comparison = name.removeprefix(EFFECT)
    if name in ENTRIES:
        return ENTRIES[name]
    if name == comparison or comparison not in comparisons:
        known = ", ".join([*ENTRIES, *(EFFECT + other for other in comparisons)])
        raise LeakpipeError(f"unknown figure {name!r}; known: {known}")
    title = str(comparisons[comparison]["title"])
    about = f"{title}: mean SSIM of the attacks that differ in it, a panel per client; the prior image is dashed."
    return Entry(title, about)


def name_command(name: str) -> str:
    """Which `leakpipe plot` command draws a figure: all comparisons are drawn by one."""
    return "effect" if name.startswith(EFFECT) else name
