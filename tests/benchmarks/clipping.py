"""Rebuilds one image whose gradient was clipped by value: `python -m tests.benchmarks.clipping`.

Draws are those of `tests.benchmarks.recursive`, at 32 pixels on `convnet-bn`; what is sent are differences of float32
weights. Settings were chosen on draw 11.
"""

import argparse
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.client.batches import Batch
from leakpipe.client.local_update import local_update
from leakpipe.client.update import ClientUpdate, combine_updates
from leakpipe.data.datasets import DATASETS
from leakpipe.metrics.similarity import ssim
from leakpipe.params.data import ImagesParams
from leakpipe.params.training import ClippingParams, TrainingParams
from tests.benchmarks.recursive import CLIENT, Case

FACE = torch.tensor([0])  # class of the attacked image
ITERATIONS = 300


def main() -> None:
    """Print one line per limit and draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.clipping", description=__doc__)
    parser.add_argument("--seeds", default="12,13,14,15")
    parser.add_argument("--rounds", default="0,12", help="of federated training before the attack")
    parser.add_argument("--shares", default="0.1,0.5,0.9", help="of the gradient's values that the limit leaves")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/leakpipe-recursive"), help="where models are kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    data = DATASETS["lfw-faces"].load(ImagesParams(dataset="lfw-faces", image_size=32))
    settings = PRESETS["bn-cosine"].settings.model_copy(update={"iterations": ITERATIONS})
    for share, seed, rounds in product(*(chosen.shares.split(","), chosen.seeds.split(","), chosen.rounds.split(","))):
        case = Case("convnet-bn", 32, int(seed), int(rounds))
        plain, truth = case.observe(data, chosen.cache)
        began = time.process_time()
        found = invert(_clip(plain, truth, float(share)), settings, seed=0)
        seconds = time.process_time() - began
        similarity = float(ssim(found.images[0].numpy(), truth[0].numpy(), data_range=1.0))
        print(f"limit at {share}, draw {seed}, rounds {rounds}: SSIM {similarity:.3f}, {seconds:.0f} s", flush=True)


def _clip(plain: Observation, truth: Tensor, share: float) -> Observation:
    """Returns the observation of a client that clips its gradients to their quantile."""
    batch, state = Batch(truth, FACE), plain.before
    gradients = local_update(state, [batch], CLIENT).weights.values()
    sizes = torch.cat([value.flatten().abs() for value in gradients]) / CLIENT.learning_rate
    clipping = ClippingParams(kind="value", limit=float(sizes.quantile(share)))
    settings = replace(CLIENT, training=TrainingParams(clipping=clipping))
    before = ClientUpdate(state.weights, state.statistics, 1)
    update = local_update(state, [batch], settings)
    sent = combine_updates(lambda change, weight: (weight + change) - weight, update, before)
    return replace(plain, update=sent, settings=settings, client=replace(plain.client, labels=FACE))


if __name__ == "__main__":
    main()
