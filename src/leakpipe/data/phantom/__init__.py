"""`cxr-phantom`: chest radiographs of patients who do not exist, made from a seed at any size.

`anatomy` draws a patient, `soft`, `bones`, `vessels` and `opacities` say how much of each tissue every ray crosses,
`film` exposes and develops it, `overlay` writes a name on it, `generate` puts them together. Lengths are in units of
half the film's height; x grows to the viewer's right (the patient's left), y downwards; tissue is in centimetres.
"""

CLASSES = ("clear", "opacities")  # every second patient has opacities
