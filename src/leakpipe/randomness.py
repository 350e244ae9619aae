"""Random numbers that depend on names only: never on a global generator, on order or on time."""

import hashlib


def derive_seed(*names: object) -> int:
    """Return a seed in [0, 2**63) that is fixed by `names` and unrelated between different names.

    Seeding each use by what it is for (`derive_seed("noise", seed, round, client)`) keeps results the
    same whatever order, process or machine they are computed in.
    """
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
