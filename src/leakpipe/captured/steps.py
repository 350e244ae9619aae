"""The number of local steps, from batch normalisation's counters, compared with what was declared."""

from leakpipe.captured.aligning import Aligned
from leakpipe.captured.state import Kind
from leakpipe.errors import LeakpipeError

COUNTED = "its counters say"  # in a note of a number of steps that was checked, and with it the order of the files


def count_steps(held: Aligned, sent: Aligned, kind: Kind, *, declared: int | None, notes: list[str]) -> int:
    """Returns how many local steps the client made.

    torch counts the batches of each batch-normalisation layer in training mode (`num_batches_tracked`). An average of
    several clients' counters has a fraction, which a client cuts off when it loads the global model. A layer that one
    step passes twice counts double. Counters that agree in no such way were changed by a defence (noise, clipping):
    they say nothing.

    Raises:
        LeakpipeError: The counters run backwards, contradict `declared`, or say nothing while neither `declared` nor
            the file does.
    """
    found = {_count(held, sent, kind, name) for name in sent.counters if kind != "full" or name in held.counters}
    moved = sorted(found - {0.0}, key=abs)
    if not moved or not _agree(moved):
        why = "do not agree with each other" if moved else "did not move" if found else "are not in both files"
        return _without_counters(sent, why, declared, notes)
    said = " or ".join(f"{abs(count):g}" for count in moved)
    if moved[0] < 0:
        raise LeakpipeError(
            f"{sent.path}: counts {said} local steps fewer than {held.path.name}: the two files are swapped, or the "
            "difference is before minus after (a reversed difference)"
        )
    if declared is not None and declared not in moved:
        raise LeakpipeError(
            f"{sent.path}: its counters say {said} local steps, but {declared} were declared: correct the number of "
            "images, the batch size or the epochs"
        )
    if declared is None and len(moved) > 1:
        raise LeakpipeError(f"{sent.path}: its counters say {said} local steps, expected one number: declare it")
    notes.append(f"{sent.path.name}: {COUNTED} {said} local step{'' if said == '1' else 's'}.")
    return int(declared or moved[0])


def _count(held: Aligned, sent: Aligned, kind: Kind, name: str) -> float:
    value = sent.counters[name]
    if kind == "full":
        return value - int(held.counters[name])
    return -value if kind == "reversed-difference" else value


def _agree(counts: list[float]) -> bool:
    """Returns whether all counts, the smallest first, are whole multiples of it with its sign."""
    return all(count.is_integer() and count % counts[0] == 0 and count / counts[0] > 0 for count in counts)


def _without_counters(sent: Aligned, why: str, declared: int | None, notes: list[str]) -> int:
    """Returns what was declared, or else what the file says; a note says that nothing could check it."""
    said = sent.facts.get("steps")
    steps = declared if declared is not None else said
    if not isinstance(steps, int) or steps < 1:
        raise LeakpipeError(
            f"{sent.path}: batch normalisation's counters {why}, so the number of local steps is not known: declare it"
        )
    whose = "declared" if declared is not None else "file's own"
    notes.append(
        f"{sent.path.name}: batch normalisation's counters {why}; neither the {whose} {steps} local steps nor the "
        "order of the files could be checked."
    )
    return steps
