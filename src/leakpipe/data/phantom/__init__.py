"""`cxr-phantom`: chest radiographs of patients who do not exist, drawn from a seed at any size.

The room could leave as a package: nothing outside imports more of it than this face and `entry`, and only `entry`
imports from leakpipe's other data sets.

`anatomy` draws a patient; `soft`, `bones`, `vessels` and `opacities` compute how much of each tissue every ray crosses;
`film` exposes and develops it; `overlay` chooses the text that `burned_text` writes on it; `generate` combines them.
Lengths are in units of half the film's height; x grows to the viewer's right (the patient's left), y downwards; tissue
is in centimetres.
"""

from leakpipe.data.phantom.burned_text import ALPHABET, BurnedText, render_glyphs

__all__ = ["ALPHABET", "CLASSES", "BurnedText", "render_glyphs"]

CLASSES = ("clear", "opacities")  # every second patient has opacities
