"""The number of local steps, from batch normalisation's counters, compared with what was declared."""

from leakpipe.captured.aligning import Aligned
from leakpipe.captured.state import Kind
from leakpipe.errors import LeakpipeError


def count_steps(held: Aligned, sent: Aligned, kind: Kind, *, declared: int | None, notes: list[str]) -> int:
    """Returns how many local steps the client made.

    torch counts the batches of each batch-normalisation layer in training mode (`num_batches_tracked`). An average of
    several clients' counters has a fraction, which a client cuts off when it loads the global model. A layer that one
    step passes twice counts double.

    Raises:
        LeakpipeError: The counters run backwards, contradict `declared`, or are not there while `declared` is None.
    """
    counts = sorted(
        {_count(held, sent, kind, name) for name in sent.counters if name in held.counters or kind != "full"}
    )
    moved = [count for count in counts if count]
    said = sent.facts.get("steps")
    if not moved and declared is None and isinstance(said, int) and said > 0:
        notes.append(f"{sent.path.name}: says {said} local steps, which no counter could check.")
        return said
    if not moved:
        why = "did not move" if counts else "are not in both files"
        if declared is None:
            raise LeakpipeError(
                f"{sent.path}: batch normalisation's counters {why}, so the number of local steps is not known: "
                "declare it"
            )
        notes.append(
            f"{sent.path.name}: batch normalisation's counters {why}; neither the declared "
            f"{declared} nor the order of the files could be checked."
        )
        return declared
    if moved[0] < 0:
        raise LeakpipeError(
            f"{sent.path}: counts {-moved[0]:g} local steps fewer than {held.path.name}: the two files are swapped, or "
            "the difference is before minus after (a reversed difference)"
        )
    found = " or ".join(f"{count:g}" for count in moved)
    if declared is not None and declared not in moved:
        raise LeakpipeError(f"{sent.path}: its counters say {found} local steps, but {declared} were declared")
    if declared is None and (len(moved) > 1 or not moved[0].is_integer()):
        raise LeakpipeError(f"{sent.path}: its counters say {found} local steps, expected one whole number: declare it")
    notes.append(f"{sent.path.name}: its counters say {found} local steps.")
    return int(declared or moved[0])


def _count(held: Aligned, sent: Aligned, kind: Kind, name: str) -> float:
    value = sent.counters[name]
    if kind == "full":
        return value - int(held.counters[name])
    return -value if kind == "reversed-difference" else value
