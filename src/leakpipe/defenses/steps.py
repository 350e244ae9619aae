"""The places where steps of a defence act, and what they leave to the server. Importing this needs no torch."""

from leakpipe.params.defenses import DefenseSteps, MixupParams, SecureAggregationParams
from leakpipe.params.privacy import DpSgdParams

IN_TRAINING = (DpSgdParams, MixupParams)
# Steps that act on no client's update: some change local training, another is the server's sum.
ELSEWHERE = (*IN_TRAINING, SecureAggregationParams)


def training_step(defense: DefenseSteps) -> DpSgdParams | MixupParams | None:
    """Returns the step that changes local training; None where training is plain."""
    first = defense.root[0] if defense.root else None
    return first if isinstance(first, IN_TRAINING) else None


def withholds_statistics(defense: DefenseSteps) -> bool:
    """Returns whether running statistics of batch normalisation are not shared at all."""
    return any(
        step.kind == "freeze-bn-statistics" or (step.kind == "dp-gaussian" and step.statistics == "withheld")
        for step in defense.root
    )


def count_aggregated(defense: DefenseSteps) -> int:
    """Returns the number of clients whose updates the server sees as one."""
    last = defense.root[-1] if defense.root else None
    return last.clients if isinstance(last, SecureAggregationParams) else 1
