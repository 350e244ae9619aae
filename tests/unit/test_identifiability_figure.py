"""The identifiability figure: what is drawn is what the table says."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from leakpipe.errors import LeakpipeError
from leakpipe.tables.statistics import bootstrap_mean
from leakpipe.tables.table import identifiability_columns
from leakpipe.tables.wording import select
from tests.unit.figure_tables import draw

CLIENTS = {
    "a-batch-8": {"images": 8, "batch_size": 8},
    "b-batch-2": {"images": 8, "batch_size": 2},
    "c-one": {"images": 1, "batch_size": 1},
}
CHOSEN: dict[str, Any] = {
    "embedders": ["pixels", "global-model"],
    "clients": CLIENTS,
}


def identifiability_table(seeds: int = 4) -> pd.DataFrame:
    """Every client under two defences, by two attacks; the numbers differ from row to row."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for client, facts in CLIENTS.items():
            for image in range(int(facts["images"])):
                for defense in ("none", "loud"):
                    for attack in ("main", "other"):
                        for embedder in ("global-model", "pixels"):
                            named = {"experiment": "e", "defense": defense, "seed": seed, "round": 1, "client": client}
                            named |= {"attack": attack, "image": image, "reconstruction": image, "embedder": embedder}
                            hits = {name: float(rng.random() < 0.5) for name in ("top1", "top1_prior", "top5")}
                            fixed = {"rank": 2, "rank_prior": 9, "top5_prior": 0, "candidates": 17, "chance": 1 / 17}
                            rows.append({**named, **hits, **fixed, "chance_client": int(facts["images"]) / 17})
    return pd.DataFrame(rows, columns=identifiability_columns((1, 5)))


def test_shares_and_intervals_are_those_of_the_table() -> None:
    table = identifiability_table()
    figure = draw("identifiability", identifiability=table, **CHOSEN).figure
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["by pixels", "by global-model"]
    for axes, embedder in zip(figure.axes, CHOSEN["embedders"], strict=True):
        priors, found = axes.lines[0::2], axes.lines[1::2]
        for index, client in enumerate(("c-one", "b-batch-2", "a-batch-8")):
            rows = select(table, attack="main", defense="none", embedder=embedder, client=client)
            assert found[index].get_ydata()[0] == pytest.approx(rows.top1.mean())
            assert priors[index].get_ydata()[0] == pytest.approx(rows.top1_prior.mean())
            (low, high) = axes.collections[2 * index + 1].get_segments()[0][:, 1]
            np.testing.assert_allclose((low, high), bootstrap_mean(rows.top1, clusters=rows.seed, seed=1), atol=0.02)
            band = axes.collections[2 * index].get_paths()[0].vertices[:, 1]
            assert band.min() == pytest.approx(1 / 17)
            assert band.max() >= rows.chance_client.mean() - 1e-9
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        assert ticks == ["c-one\n1 image", "b-batch-2\n8 images\nbatch 2", "a-batch-8\n8 images\nbatch 8"]


def test_few_draws_have_no_interval() -> None:
    figure = draw("identifiability", identifiability=identifiability_table(seeds=2), **CHOSEN).figure
    bars = figure.axes[0].collections[1::2]
    assert len(bars) == 3
    assert not any(np.isfinite(segment).any() for bar in bars for segment in bar.get_segments())


def test_the_caption_counts() -> None:
    said = draw("identifiability", identifiability=identifiability_table(), **CHOSEN).caption
    assert "nearest of the 17 training images of all clients" in said
    assert "as pixels and global-model measure nearness" in said
    counted = "c-one: 1 image: 4 reconstructions, 4 draws; b-batch-2: 8 images, batch 2: 32 reconstructions, 4 draws"
    assert counted in said


def test_what_the_table_does_not_hold_is_named() -> None:
    with pytest.raises(LeakpipeError, match="attack 'absent'"):
        draw("identifiability", attack="absent")
    with pytest.raises(LeakpipeError, match="embedder 'imagenet-resnet50'"):
        draw("identifiability", embedders=["imagenet-resnet50"])
