"""The audit's page and its one-page summary: what an update gives away, for a person who has to decide."""

import base64
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from leakpipe.audit.assessment import Assessment, Attempt
from leakpipe.audit.assumptions import Assumption
from leakpipe.audit.calibration import Calibration, shipped_calibration
from leakpipe.audit.what_if import describe_defense, is_estimate
from leakpipe.figures.style import COLORS, INK, MUTED, Drawing, in_style
from leakpipe.params.audit import AS_SENT, PlannedAttack
from leakpipe.report.page import format_duration, format_number, format_share, read_part
from leakpipe.tables.verdicts import LEAK_MARGIN
from leakpipe.tables.wording import LEAKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FITTING, LINE = 22, 0.0152  # lines of text below the chart of the summary, and the height of one
SHOWN = 8  # images of one client that the page shows
TOO_LITTLE = 0.005  # of the update explained, to be worth a word


@dataclass(frozen=True)
class AuditFindings:
    """All that an audit found, for its page and its summary.

    Attributes:
        name: Of the audit.
        assessments: Of every update under every defence, `AS_SENT` first.
        attempts: All of them.
        attacks: Those that were planned on each update as it was sent, by name.
        hardly_begun: Whether none of them had a quarter of the iterations that it wants.
        truths: The clients' own images by update, where given: shape (images, channels, height, width).
    """

    name: str
    assessments: Sequence[Assessment]
    attempts: Sequence[Attempt]
    assumptions: Sequence[Assumption]
    attacks: Mapping[str, PlannedAttack]
    hardly_begun: bool = False
    truths: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def sent(self) -> list[Assessment]:
        """Those of the updates as they were sent."""
        return [each for each in self.assessments if each.defense == AS_SENT]

    @property
    def defenses(self) -> list[str]:
        """The defences that the updates were attacked under, `AS_SENT` first."""
        return list(dict.fromkeys(each.defense for each in self.assessments))

    @property
    def worst(self) -> Assessment:
        """The most alarming of the updates as they were sent."""
        return max(self.sent, key=lambda each: (each.word == LEAKS, np.nan_to_num(each.gain, nan=-1), _known(each)))

    @property
    def doubted(self) -> list[Assumption]:
        """Returns what speaks against the declared training of any update."""
        return [each for each in self.assumptions if each.status == "doubted"]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, without the word it begins with."""
        worst, total = self.worst, len(self.sent)
        leaking = [each for each in self.sent if each.word == LEAKS]
        if total == 1:
            return f"{worst.why}."
        several = (
            f"{len(leaking)} of {total} updates leak; of the worst, {worst.update}," if leaking else f"{worst.update}:"
        )
        return f"{several} {worst.why}."

    def defended(self, update: str) -> list[Assessment]:
        """Returns those of an update under each further defence."""
        return [each for each in self.assessments if each.update == update and each.defense != AS_SENT]

    @property
    def scored(self) -> list[tuple[Attempt, Mapping[str, Any]]]:
        """Every attempt with the scores of its most leaked image, empty without the truth."""
        found = {(each.update, each.defense): each for each in self.assessments}
        cells = [(each, found[each.update, each.defense]) for each in self.attempts]
        return [(each, cell.most_leaked(each) if cell.scores else {}) for each, cell in cells]


def _known(each: Assessment) -> float:
    return -1.0 if each.best.explained is None else each.best.explained


def render_audit(findings: AuditFindings) -> str:
    """Renders the page: one file that needs nothing but itself. Images are shown only after a click."""
    environment = Environment(
        loader=PackageLoader("leakpipe.audit", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "share": format_share,
        "duration": format_duration,
        "choices": _choices,
        "explained": _say_explained,
        "described": describe_defense,
        "found": _say_found,
    }
    pictures = {
        each.update: [
            _picture(each, position, findings.truths.get(each.update))
            for position in range(min(SHOWN, len(each.best.images)))
        ]
        for each in findings.sent
    }
    return environment.get_template("page.html.j2").render(
        findings=findings,
        pictures=pictures,
        css=Markup(read_part("page.css")),
        as_sent=AS_SENT,
        found_less=FOUND_LESS,
        calibration=None if findings.truths else _as_data_uri(draw_calibration(findings, shipped_calibration())),
    )


def _choices(found: Assessment) -> list[tuple[Attempt, str]]:
    """Returns the attempts that the page shows of an update, and what each is: one of both if they are the same."""
    if not found.scores:
        return [(found.best, "the attacker's own choice")]
    if is_estimate(found.defense):
        return [(found.best, "nearest the truth among the images of all clients")]
    if found.best is found.strongest:
        return [(found.best, "the attacker's own choice, also nearest the truth")]
    return [(found.best, "the attacker's own choice"), (found.strongest, "nearest the truth, the upper bound")]


def _say_explained(attempt: Attempt) -> str:
    """A share of the update; images that explain less than the start explain none of it."""
    return format_share(math.nan if attempt.explained is None else max(0.0, attempt.explained))


def _say_found(attempt: Attempt, most: Mapping[str, Any]) -> str:
    """Returns what became of an attempt: by its most leaked image, without the true images by how much it explains."""
    if most:
        nearer = most["ssim"] - most["ssim_prior"] > LEAK_MARGIN
        return "more than was known before" if nearer else "no more than was known before"
    if attempt.explained is None:
        return "–"
    return (
        "images that explain more than the start"
        if attempt.explained >= TOO_LITTLE
        else "nothing better than its start"
    )


def _picture(found: Assessment, position: int, truths: np.ndarray | None) -> dict[str, str]:
    """Returns an image of an update, before the attack, rebuilt and (where known) true, as data URIs by caption.

    Every rebuilt one has its own attack's name and numbers in its caption.
    """
    chosen = [(attempt, role, found.scores.get(attempt.attack)) for attempt, role in _choices(found)]
    before = chosen[0][2][position]["ssim_prior"] if chosen[0][2] else None
    pictures = {f"known before{_say_similarity(before)}": encode_image(found.best.prior[position])}
    for attempt, role, rows in chosen:
        at, similarity = (rows[position]["reconstruction"], rows[position]["ssim"]) if rows else (position, None)
        caption = f"{role}: {attempt.attack}, explains {_say_explained(attempt)}{_say_similarity(similarity)}"
        pictures[caption] = encode_image(attempt.images[at])
    return pictures if truths is None else {**pictures, "the client's own": encode_image(truths[position])}


def _say_similarity(similarity: float | None) -> str:
    return "" if similarity is None else f", SSIM {format_number(similarity)}"


def encode_image(image: np.ndarray) -> str:
    """Encodes an image of shape (channels, height, width) in [0, 1] as a PNG data URI."""
    from PIL import Image

    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)).save(stream, format="PNG")
    return _encode(stream)


@in_style
def draw_summary(findings: AuditFindings) -> Drawing:
    """Draws the summary on a page of A4: the verdict, how much each attack explains, the assumptions. No images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.27, 11.69))
    worst = findings.worst
    figure.text(0.08, 0.955, f"Audit {findings.name}", color=MUTED, fontsize=11)
    headline = textwrap.fill(f"{worst.word.capitalize()}: {findings.sentence}", 52)
    figure.text(0.08, 0.93, headline, fontsize=15, fontweight="bold", va="top",
                color=COLORS[0] if worst.word == LEAKS else INK)  # fmt: skip
    _draw_attempts(figure, findings)
    helped = [
        (each.defense, f"{describe_defense(each.defense)}: {each.word}") for each in findings.defended(worst.update)
    ] or [("No defence was tried", "name some in what_if")]
    assumed = [(f"{each.what} ({each.status})", each.how) for each in findings.assumptions]
    bottom, room = 0.43, FITTING
    for title, said in ((f"What would help ({FOUND_LESS})", helped), ("What was assumed", assumed)):
        lines = [line for what, how in said for line in textwrap.wrap(f"{what}: {how}", 100, subsequent_indent="  ")]
        if len(lines) > room:
            lines = [*lines[: room - 1], "… and more in report.html"]
        figure.text(0.08, bottom, title, fontweight="bold", va="top")
        figure.text(0.08, bottom - 0.015, "\n".join(lines), fontsize=9, va="top", linespacing=1.4)
        bottom, room = bottom - LINE * (len(lines) + 2), room - len(lines)
    figure.text(0.08, 0.045, textwrap.fill(SILENCE, 90), fontsize=9, fontweight="bold", va="top", linespacing=1.4)
    return Drawing(figure, f"{worst.word.capitalize()}: {findings.sentence}")


def _draw_attempts(figure: "Figure", findings: AuditFindings) -> None:
    """Draws a bar for each attempt on the worst update: how similar its most leaked image is, where that is known."""
    scored = [(each, most) for each, most in findings.scored if each.update == findings.worst.update]
    cells = [
        (each, most["ssim"] if most else max(0.0, each.explained or 0.0))
        for each, most in scored
        if most or each.explained is not None
    ]
    bars = sorted(cells, key=lambda bar: (bar[0].defense != AS_SENT, bar[0].defense, -bar[1]))
    axes = figure.add_axes((0.36, 0.49, 0.56, 0.31))
    colors = [COLORS[0] if each.defense == AS_SENT else COLORS[1] for each, _ in bars]
    axes.barh(range(len(bars)), [max(0.0, value) for _, value in bars], color=colors)
    names = [each.attack if each.defense == AS_SENT else f"{each.attack}, after {each.defense}" for each, _ in bars]
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    if findings.worst.scores:
        axes.set_title("How similar the most leaked image of each attack is")
        axes.set_xlabel("SSIM to the true image, 1 is identical; the line: known before")
        axes.axvline(findings.worst.most_leaked(findings.worst.strongest)["ssim_prior"], color=INK, linestyle="--")
    else:
        axes.set_title("How far each attack came")
        axes.set_xlabel("share of the update that the rebuilt images explain")


@in_style
def draw_calibration(findings: AuditFindings, calibration: Calibration) -> Drawing:
    """Draws the known cases by explanation and agreement, those that leaked apart, and the updates among them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for leaked, label, marker, color in ((True, "leaked", "o", COLORS[0]), (False, "did not", "s", COLORS[1])):
        chosen = [each for each in calibration.cases if (each.gain > LEAK_MARGIN) == leaked]
        x, y = [max(0.0, each.explained) for each in chosen], [each.agreement for each in chosen]
        axes.scatter(x, y, s=22, marker=marker, color=color, alpha=0.5, label=f"known case that {label}")
    here = [each for each in findings.sent if each.best.explained is not None]
    x, y = [max(0.0, each.best.explained or 0.0) for each in here], [each.agreement for each in here]
    axes.scatter(x, y, s=160, marker="*", color=INK, label="updates of this audit")
    axes.set_xlabel("share of the update that the rebuilt images explain")
    axes.set_ylabel("agreement of the two best attempts, SSIM")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return Drawing(figure, "Known cases by explanation and agreement, and the updates of this audit among them")


def _as_data_uri(drawing: Drawing) -> str:
    stream = io.BytesIO()
    drawing.figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return _encode(stream)


def _encode(stream: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


FOUND_LESS = "“cannot tell” only says that one short attack found less"
SILENCE = (
    "What a low score does not mean: these attacks, with this time and this knowledge, came no further. Others may. "
    "Only differential privacy bounds every attack."
)


def save_summary(drawing: Drawing, *, png: Path, pdf: Path) -> None:
    """Saves the summary as PNG and PDF, each whole or not at all; the same bytes for the same drawing."""
    from leakpipe.files.storage import write_atomically

    with write_atomically(png) as stream:
        drawing.figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    with write_atomically(pdf) as stream:
        drawing.figure.savefig(stream, format="pdf", metadata={"CreationDate": None})
