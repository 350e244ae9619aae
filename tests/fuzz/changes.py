"""Spoils inputs, values in nested content and bytes, and says what counts as a refusal."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from leakpipe.errors import LeakpipeError

Result = TypeVar("Result")
ODD = ["", "nan", "1e3", "~", "../x", "{x}", "%s", "\x00", "\x1b[1m", "a/b", "é"]
TEXT = st.text(max_size=12) | st.sampled_from(ODD)
NUMBERS = st.integers(-3, 3) | st.integers() | st.floats() | st.sampled_from([1e308, 2**31, 2**63, 0.5, -0.0, True])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
)


def refused(read: Callable[[], Result]) -> Result | LeakpipeError:
    """Returns what reading gave, or the refusal; any other exception is a failure of the test."""
    try:
        return read()
    except LeakpipeError as error:
        return error


@st.composite
def edited(draw: st.DrawFn, content: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A copy of nested content in which up to three entries are replaced, removed or added."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(0, 3))):
        place = content
        while place:
            key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            action = draw(st.sampled_from(["replace", "remove", "add"]))
            if action == "remove":
                del place[key]
            elif action == "replace" or isinstance(place, list):
                place[key] = draw(values)
            else:
                place[draw(TEXT)] = draw(values)
            break
    return content


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are changed, cut off, doubled or inserted."""
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(spoilt))), draw(st.integers(1, 16))
        action = draw(st.sampled_from(["set", "flip", "cut", "remove", "insert", "repeat"]))
        if action == "set":
            spoilt[start : start + length] = draw(st.binary(min_size=length, max_size=length))
        elif action == "flip" and start < len(spoilt):
            spoilt[start] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del spoilt[start:]
        elif action == "remove":
            del spoilt[start : start + length]
        elif action == "insert":
            spoilt[start:start] = draw(st.binary(min_size=1, max_size=16))
        elif action == "repeat":
            spoilt[start:start] = spoilt[start : start + length]
    return bytes(spoilt)


def same(one: Any, other: Any) -> bool:
    """Tells whether two values of JSON are the same, of the same kind: True is not 1, but 1 may be 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
