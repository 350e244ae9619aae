"""The split of a data set into disjoint parts, one per seed: clients, validation, test and public."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import require_wholes
from leakpipe.params.data import DataParams
from leakpipe.params.federation import ClientParams
from leakpipe.randomness import derive_seed


@dataclass(frozen=True)
class Split:
    """Indices into the data set. No index is in two parts, except that datalists may give two clients the same image.

    Attributes:
        clients: Training images of each client.
        public: Images that no client holds and the attacker may know.
    """

    clients: Mapping[str, tuple[int, ...]]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    public: tuple[int, ...]

    def images_of(self, client: str) -> list[int]:
        """Returns the training images of a client; `LeakpipeError` if the split has none of that name."""
        if client not in self.clients:
            raise LeakpipeError(f"client {client!r} is not in the split, which has {', '.join(self.clients)}")
        return list(self.clients[client])

    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Returns the parts that are no client's."""
        return self.validation, self.test, self.public

    def to_json(self) -> dict[str, Any]:
        """Returns the split in plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, source: str) -> "Split":
        """Parses what `to_json` returned; `LeakpipeError` names `source` and the field that is missing or wrong."""
        try:
            clients = {str(name): require_wholes(indices) for name, indices in content["clients"].items()}
            parts = {part: require_wholes(content[part]) for part in ("validation", "test", "public")}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LeakpipeError(f"{source}: is not a split of a data set: {error!r}") from error
        return cls(clients=clients, **parts)


def split_dataset(
    labels: np.ndarray,
    class_names: Sequence[str],
    data: DataParams,
    clients: Mapping[str, ClientParams],
    *,
    seed: int,
) -> Split:
    """Draws disjoint parts, each as balanced over the classes it may hold as possible.

    Clients restricted to some classes draw first, so that the others cannot use up those classes.

    Args:
        labels: int64 of shape (N,); label i means `class_names[i]`.

    Raises:
        LeakpipeError: A class has too few images for the parts that require it.
    """
    left = shuffle_by_class(labels, class_names, seed=seed)

    def draw(part: str, count: int, allowed: Sequence[str]) -> tuple[int, ...]:
        return draw_balanced(left, count, allowed, part=part)

    held: dict[str, tuple[int, ...]] = {}
    for name, client in sorted(clients.items(), key=lambda item: item[1].classes is None):
        held[name] = draw(f"client {name!r}", client.images, client.classes or class_names)
    return Split(
        clients={name: held[name] for name in clients},
        test=draw("the test part", data.test, class_names),
        validation=draw("the validation part", data.validation, class_names),
        public=draw("the public part", data.public, class_names),
    )


def shuffle_by_class(
    labels: np.ndarray, class_names: Sequence[str], *, seed: int, among: Collection[int] | None = None
) -> dict[str, list[int]]:
    """Returns the indices of each class in random order, by class name; only those in `among`, if given."""
    rng = np.random.default_rng(derive_seed("split", seed))
    shuffled = {name: rng.permutation(np.flatnonzero(labels == label)) for label, name in enumerate(class_names)}
    return {
        name: [int(index) for index in indices if among is None or int(index) in among]
        for name, indices in shuffled.items()
    }


def draw_balanced(left: dict[str, list[int]], count: int, allowed: Sequence[str], *, part: str) -> tuple[int, ...]:
    """Removes `count` images from `left`, taking turns among the allowed classes until they are used up.

    Raises:
        LeakpipeError: Too few images are left for `part`, which the message names.
    """
    drawn: list[int] = []
    for position in range(count):
        available = [name for name in allowed if left[name]]
        if not available:
            raise LeakpipeError(f"data: class {'/'.join(allowed)} has too few images for {part} ({count} images)")
        wanted = allowed[position % len(allowed)]
        drawn.append(left[wanted if wanted in available else available[0]].pop())
    return tuple(drawn)
