"""LeakPro's modular attack with inferred batch statistics (github.com/aidotse/LeakPro, preset `gia_running_attack`).

Changed against its preset: the mean public image as the start, and a number of images so large that its correction of
the variance, by images instead of values per channel, changes nothing (of one image it would make every variance zero):
the variances handed to it are the biased ones already.
"""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from tests.benchmarks.peers.trace import Attack, Trace, biased_statistics, global_module

STATISTICS = 0.01  # its own is 0.00016; chosen on B1, seed 1, of that, 0.001 and 0.01
MANY = 10**9


def run_leakpro(folder: Path) -> Attack:
    """Its attack as the others here.

    Args:
        folder: Holds the package `leakpro`.
    """
    sys.path.insert(0, str(folder))
    from leakpro.attacks.gia_attacks.modular.components.optimization_building_blocks.training_simulator import (
        TrainingSettings,
    )
    from leakpro.attacks.gia_attacks.modular.presets import gia_running_attack
    from leakpro.fl_utils.fl_client_simulator import ClientObservations

    logging.disable(logging.INFO)

    def attack(observation: Observation, steps: int, trace: Trace) -> Tensor:
        client, settings = observation.client, observation.settings
        assert client.labels is not None
        assert client.prior is not None
        several, momentum = observation.update.steps > 1, settings.batch_norm_momentum
        assert momentum is not None
        sign = 1 if several else -1  # it compares with the difference of weights, or with one gradient
        seen = ClientObservations(
            gradients={name: sign * value for name, value in observation.update.weights.items()},
            pre_bn_stats=[(torch.zeros_like(m), torch.zeros_like(v)) for m, v in biased_statistics(observation)],
            post_bn_stats=[(momentum * mean, momentum * variance) for mean, variance in biased_statistics(observation)],
            num_images=MANY,
            input_shape=(client.images, *observation.image_shape),
            training_settings=TrainingSettings(
                epochs=client.epochs,
                optimizer_type="sgd",
                training_batch_size=client.batch_size,
                compute_mode="updates" if several else "gradients",
                model_mode="train",
            ),
            labels=client.labels,
            data_mean=torch.zeros(1),
            data_std=torch.ones(1),
        )
        preset = gia_running_attack()
        preset.max_iterations, preset.bn_momentum, preset.bn_weight = steps, momentum, STATISTICS
        preset.log_interval = MANY
        built = preset.build(seen)
        prior = client.prior
        built.initialization = SimpleNamespace(
            initialize=lambda shape, **_: SimpleNamespace(reconstruction=prior.reshape(shape).clone()),
            get_metadata=lambda: SimpleNamespace(name="prior image"),
        )
        step = built.optimization.step_strategy.execute_step

        def watched(state: SimpleNamespace, *args: object) -> object:
            trace.visit(state.reconstruction.reshape(prior.shape))
            return step(state, *args)

        built.optimization.step_strategy.execute_step = watched
        torch.manual_seed(0)
        found, _ = built.run_attack(global_module(observation), seen, torch.device("cpu"))
        return found.reshape(prior.shape).detach()  # type: ignore[no-any-return]

    return attack
