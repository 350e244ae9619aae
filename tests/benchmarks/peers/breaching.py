"""The attack `modern` of breaching (github.com/JonasGeiping/breaching) with the knowledge that this repository's has.

Changed against its published form: batch normalisation in training mode, a term for the batch statistics (its own, from
DeepInversion), the mean public image as the start. Its total variation takes three channels; for gray images the same
filter is given one. Simulating several local steps, it runs a copy of the network that its hooks do not see: there its
two terms for features and statistics are left out.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.models.batchnorm import BATCH_NORMS
from tests.benchmarks.peers.trace import Attack, Trace, biased_statistics, global_module

TOTAL_VARIATION, FEATURES = 0.1, 0.1  # as `modern`
STATISTICS = 0.01  # chosen on B1, seeds 1 and 2, of 0.001, 0.01 and 0.1


def run_breaching(folder: Path) -> Attack:
    """Its attack as the others here.

    Args:
        folder: Holds the package `breaching`.
    """
    sys.path.insert(0, str(folder))
    from breaching.attacks.auxiliaries.regularizers import TotalVariation
    from breaching.attacks.optimization_based_attack import OptimizationBasedAttacker
    from omegaconf import OmegaConf

    def attack(observation: Observation, steps: int, trace: Trace) -> Tensor:
        targets = biased_statistics(observation)

        class Watched(OptimizationBasedAttacker):  # type: ignore[misc]
            def _construct_models_from_payload_and_buffers(self, *args: object) -> object:
                models = super()._construct_models_from_payload_and_buffers(*args)
                layers = [layer for layer in models[0].modules() if isinstance(layer, BATCH_NORMS)]
                for layer, (mean, variance) in zip(layers, targets, strict=True):
                    layer.running_mean.copy_(mean)
                    layer.running_var.copy_(variance)
                return models

            def _compute_objective(self, candidate: Tensor, *args: object) -> object:
                trace.visit(candidate)
                return super()._compute_objective(candidate, *args)

        client, settings = observation.client, observation.settings
        assert client.labels is not None
        assert client.prior is not None
        assert settings.learning_rate is not None
        local: dict[str, object] | None = None
        gradients = [-observation.update.weights[name] for name in observation.before.weights]
        if observation.update.steps > 1:
            order = client.assumed_schedule
            local = {
                "steps": len(order),
                "data_per_step": client.batch_size,
                "lr": settings.learning_rate,
                "labels": [client.labels[list(step)] for step in order],
            }
            gradients = [-value for value in gradients]  # it compares with the difference of weights itself
        attacker = Watched(
            global_module(observation), torch.nn.CrossEntropyLoss(), OmegaConf.create(_settings(steps, local))
        )
        for term in attacker.regularizers:
            if isinstance(term, TotalVariation):
                term.groups, term.weight = 1, term.weight[:2]
        payload = {
            "parameters": list(observation.before.weights.values()),
            "buffers": None,
            "metadata": SimpleNamespace(shape=observation.image_shape, modality="vision"),
        }
        shared = {
            "gradients": gradients,
            "buffers": None,
            "metadata": {"num_data_points": client.images, "labels": client.labels, "local_hyperparams": local},
        }
        torch.manual_seed(0)
        found, _ = attacker.reconstruct([payload], [shared], {}, initial_data=client.prior.clone())
        return found["data"]  # type: ignore[no-any-return]

    return attack


def _settings(steps: int, local: dict[str, object] | None) -> dict[str, object]:
    hooked = 0.0 if local else 1.0
    return {
        "type": "modern",
        "label_strategy": None,
        "text_strategy": None,
        "token_recovery": None,
        "normalize_gradients": False,
        "init": "patterned-4",
        "objective": {"type": "cosine-similarity", "scale": 1.0, "task_regularization": 0.0},
        "restarts": {"num_trials": 1, "scoring": "cosine-similarity"},
        "optim": {
            "optimizer": "adam",
            "signed": "soft",
            "step_size": 0.1,
            "boxed": True,
            "max_iterations": steps,
            "step_size_decay": "cosine-decay",
            "langevin_noise": 0.0,
            "warmup": min(50, steps // 10),
            "grad_clip": None,
            "callback": 10**9,
        },
        "regularization": {
            "total_variation": {
                "scale": TOTAL_VARIATION,
                "inner_exp": 2,
                "outer_exp": 0.5,
                "double_opponents": False,
            },
            "features": {"scale": hooked * FEATURES},
            "deep_inversion": {"scale": hooked * STATISTICS},
        },
        "augmentations": None,
        "differentiable_augmentations": False,
        "impl": {"dtype": "float", "mixed_precision": False, "JIT": None},
    }
