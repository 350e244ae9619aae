"""Nothing calls silence safety: words that promise protection stand only where something is proven, or quoted."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.unit.report_pages import page

WORDS = re.compile(
    r"\b(stops|safe|safely|safety|hides?|hiding|hidden|(does|do) not leak|as without it|anonymous)\b", re.IGNORECASE
)
ALLOWED = {  # a file (or folder) and what may stand there, with the reason
    "src/leakpipe/data/folders.py": {"hidden": "files whose names begin with a dot"},
    "src/leakpipe/params/types.py": {"hidden": "files whose names begin with a dot"},
    "docs/data-sets.md": {"hidden": "files whose names begin with a dot"},
    "src/leakpipe/report/": {"hidden": "an attribute of HTML"},
    "src/leakpipe/attacks/adaptive.py": {"hidden": "tensors that the defence excludes from sharing"},
    "src/leakpipe/figures/overview.py": {"hidden": "images that the picture has no room for"},
    "src/leakpipe/figures/lines.py": {"hide": "dots that lie under a line"},
    "src/leakpipe/accounting/": {"hidden": "a guarantee of differential privacy"},
    "docs/privacy.md": {"hides": "a guarantee of differential privacy, or its absence"},
    "docs/attacks/bn-cosine.md": {"stops": "a search that has converged"},
    "src/leakpipe/params/attack_settings.py": {"stops": "a search that has converged"},
    "docs/defenses.md": {"stops": "a run, with an error"},
    "docs/scaling.md": {"stops": "a page that is too long to be read"},
    "docs/index.md": {"anonymous": "denied"},
}


def scanned_files() -> Iterator[Path]:
    for folder in ("src", "docs", "workflow/report"):
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".rst", ".j2", ".js", ".css") and "vendor" not in path.parts:
                yield path
    yield from (PROJECT / "README.md", PROJECT / "params.yaml", *sorted((PROJECT / "experiments").glob("*.yaml")))


def test_no_file_calls_silence_safety() -> None:
    found = []
    for path in scanned_files():
        name = path.relative_to(PROJECT).as_posix()
        allowed = {word for place, words in ALLOWED.items() if name.startswith(place) for word in words}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{name}:{number}: {word[0]}" for word in WORDS.finditer(line) if word[0].lower() not in allowed]
    assert found == []


@pytest.mark.parametrize("place", ALLOWED)
def test_what_is_allowed_is_needed(place: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in scanned_files() if str(path).startswith(f"{PROJECT}/{place}")]
    assert all(any(word in text for text in texts) for word in ALLOWED[place])


def test_no_page_calls_silence_safety(tmp_path: Path) -> None:
    text = re.sub(r"<(script|style).*?</\1>|<pre>.*?</pre>|<[^>]*>", " ", page(tmp_path), flags=re.DOTALL)
    assert [text[max(0, word.start() - 40) : word.end()] for word in WORDS.finditer(text)] == []
