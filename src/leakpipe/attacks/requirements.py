"""The requirements of an attack's settings on an update. Importing this needs no torch."""

from leakpipe.params.attack_settings import AttackSettings

# Settings that interpret an update as that of a single client.
SINGLE_CLIENT = {
    "method": "recursive",
    "batch_norm": "exact",
    "update_gradient": "detached",
    "global_model": "drifting",
    "statistics_model": "updated",
    "variance": "biased",
    "local_batches": "single",
}

RECURSIVE_MODELS = ("resnet20", "resnet18", "resnet34", "resnet50")  # of `leakpipe.models.catalog.MODELS`


def needs_statistics(settings: AttackSettings) -> bool:
    """Returns whether the attack cannot go without batch statistics."""
    return settings.batch_norm_weight > 0 or settings.method == "recursive"


def matches_weights(settings: AttackSettings) -> bool:
    """Returns whether any term depends on the update's weight differences, not on batch statistics alone."""
    return settings.objective_weight > 0 or settings.row_space_weight > 0


def unfit_for_aggregates(settings: AttackSettings, *, labels_known: bool) -> str | None:
    """Returns which setting rules out a search for the images of several clients; None if none does.

    Args:
        settings: Settings of the attack.
        labels_known: Whether the labels of all clients' images are granted.
    """
    for name, value in SINGLE_CLIENT.items():
        if getattr(settings, name) == value:
            return f"{name}: {value} is about one client's update"
    if settings.row_space_weight > 0:
        return "row_space_weight: above 0 needs the rank of one client's update"
    if settings.labels == "recovered" or (settings.labels == "granted" and not labels_known):
        return "labels: can only be recovered from one client's update; they must be granted, or searched (joint)"
    return None
