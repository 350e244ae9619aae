"""CONTRIBUTING.md, followed step by step in a copy of the project: a new attack with its page, test and experiment."""

from pathlib import Path

from tests.conftest import PROJECT
from tests.workflow.conftest import copy_checkout, environment
from tests.workflow.test_docs import blocks, replay

PAGE = PROJECT / "CONTRIBUTING.md"


def test_an_attack_comes_about_as_the_page_says(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    for block in blocks(PAGE):
        replay(block, checkout, environment(checkout))
    page = (checkout / "docs/attacks/smooth-cosine.md").read_text()
    assert page == next(block.content for block in blocks(PAGE) if block.language == "markdown")
