"""The page itself: tables, findings, figures and run records in, HTML out."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from leakpipe.defenses.naming import name_defenses
from leakpipe.errors import LeakpipeError
from leakpipe.files.log import note_read
from leakpipe.report.explorer import describe_rows
from leakpipe.report.findings import find, least_seen, list_means
from leakpipe.report.pictures import PagePictures
from leakpipe.report.runs import summarize_runs
from leakpipe.report.vendor import SHA256, VERSION, read_vendored
from leakpipe.tables.verdicts import list_verdicts

TEMPLATE = "template.html.j2"
PARTS = ("page.css", "rows.js", "chart.js", "page.js")
DARK = {  # of the colours of figures (`leakpipe.figures.style`), what they are on a dark page
    "#ffffff": "#161616",
    "#eeeeee": "#333333",
    "#cccccc": "#555555",
    "#666666": "#a8a8a8",
    "#1a1a1a": "#e8e8e8",
    "#0072b2": "#56b4e9",
    "#d55e00": "#ff8c3f",
}
MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page holds it: `source` is a data URI."""

    name: str
    heading: str
    source: str
    caption: str


def load_figure(name: str, path: Path, caption: Path, *, heading: str) -> PageFigure:
    """Read a figure (.svg or .png) and its caption (plain text)."""
    if path.suffix not in MEDIA_TYPES:
        raise LeakpipeError(f"{path}: a figure of the page ends in {' or '.join(MEDIA_TYPES)}")
    try:
        content, text = path.read_bytes(), caption.read_text(encoding="utf-8")
    except OSError as error:
        raise LeakpipeError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LeakpipeError(f"{caption}: is not a caption in UTF-8: {error}") from error
    note_read(path)
    note_read(caption)
    if path.suffix == ".svg":
        content = darken(content)
    source = f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(content).decode()}"
    return PageFigure(name, heading, source, text.strip())


def darken(svg: bytes) -> bytes:
    """Adds a style sheet to a figure: dark colours where the page is dark; pictures in it stay as they are."""
    rules = "".join(
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{ {rules} }}</style>"
    return re.sub(rb"(<svg\b[^>]*>)", rb"\1" + style.encode(), svg, count=1)


def render_page(
    *,
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame,
    metrics: Mapping[str, Any],
    verdicts: pd.DataFrame,
    claims: Mapping[str, Any],
    defenses: pd.DataFrame,
    params: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    figures: Sequence[PageFigure],
    config_files: Sequence[str],
    pictures: PagePictures | None = None,
) -> str:
    """Render the report: one page that needs nothing but itself.

    Args:
        leakage: The leakage table; all its rows are on the page, and its columns but those that are empty.
        accuracy: The accuracy table.
        metrics: Headline numbers of both (`leakpipe.tables.headline.summarize`).
        verdicts: What may be said of every client under every defence (`leakpipe.tables.verdicts`).
        claims: Verdicts on the paper's claims (`leakpipe.claims.judge.judge_claims`); no section where there are none.
        defenses: Leakage, accuracy and guarantee of each defence (`leakpipe.tables.defenses`).
        params: All parameters, merged.
        records: Run records of the jobs that the tables came from.
        figures: In the order that they are shown in.
        config_files: Parameter files that the pipeline was started with.
        pictures: What the rows of the leakage table look like; without them the page shows numbers only.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "duration": format_duration, "share": format_share}
    names = name_defenses(params["defenses"])
    judged = list_verdicts(verdicts)
    findings = find(judged, leakage, defenses, params)
    overlays = [] if list(config_files) == ["params.yaml"] else list(config_files)
    return environment.get_template(TEMPLATE).render(
        experiment=params["experiment"],
        params=params,
        findings=findings,
        verdicts=sorted(judged, key=lambda verdict: list(names).index(verdict.defense)),
        names=names,
        means=list_means(leakage, names),
        accuracy_seeds=accuracy["seed"].nunique(),
        accuracy_round=int(accuracy["round"].max()),
        figures=figures,
        claims=claims,
        defenses=defenses.to_dict("records"),
        least_seen=max(map(least_seen, defenses.to_dict("records"))),
        data=describe_rows(
            leakage, params=params, accuracy=metrics["accuracy"], worst=findings.worst, pictures=pictures
        ),
        parts={name: Markup(read_part(name)) for name in PARTS},
        vendored={name: Markup(read_vendored(name)) for name in SHA256},
        chart_version=VERSION,
        runs=summarize_runs(records),
        params_yaml=yaml.safe_dump(params, sort_keys=False, default_flow_style=None, width=100),
        command=" ".join(["snakemake", *(["--configfile", *overlays] if overlays else [])]),
        fingerprint=metrics["fingerprint"],
    )


def format_number(value: float | None, digits: int = 2) -> str:
    """`−0.70`; an en dash where there is no number."""
    if value is None or math.isnan(value):
        return "–"
    shown = round(value, digits) + 0.0  # no "−0.00"
    return f"{shown:.{digits}f}".replace("-", "−").replace("inf", "∞")


def format_share(value: float) -> str:
    """`1 %`; an en dash where there is no number."""
    return "–" if math.isnan(value) else f"{100 * value:.0f}\u00a0%"


def format_duration(seconds: float) -> str:
    """`42 s`, `6 min`, `3.2 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def read_part(name: str) -> str:
    """Text of a file of the page that is not a template."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
