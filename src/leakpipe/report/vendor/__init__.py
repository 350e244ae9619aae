"""Libraries that the report page carries along, as their authors publish them.

uPlot 1.6.32 (MIT, `npm pack uplot@1.6.32`: dist/uPlot.iife.min.js, dist/uPlot.min.css and LICENSE). To take another
version, replace the three files, `VERSION` and `SHA256`.
"""

from pathlib import Path

from leakpipe.errors import LeakpipeError

VERSION = "1.6.32"
SHA256 = {
    "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def read_vendored(name: str) -> str:
    """Text of one of the files of `SHA256`."""
    if name not in SHA256:
        raise LeakpipeError(f"{name!r} is not vendored; known: {', '.join(SHA256)}")
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
