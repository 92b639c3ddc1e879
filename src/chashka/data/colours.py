"""The eleven colours that captions name, as points of OKLCh (Ottosson 2020, bottosson.github.io/posts/oklab).

One table for those who paint (training recolours drawings to them) and those who look (the judge finds the nearest one).
"""

from __future__ import annotations

# red, orange, yellow, green, blue, purple, pink, brown, black, white, grey: the order of composed_words.COLOURS
OKLCH: tuple[tuple[float, float, float], ...] = (
    (0.60, 0.21, 27.0),
    (0.73, 0.17, 55.0),
    (0.88, 0.17, 98.0),
    (0.67, 0.18, 144.0),
    (0.58, 0.18, 258.0),
    (0.55, 0.20, 303.0),
    (0.77, 0.14, 355.0),
    (0.45, 0.09, 52.0),
    (0.25, 0.00, 0.0),
    (0.96, 0.00, 0.0),
    (0.65, 0.00, 0.0),
)
"""Lightness in [0, 1], chroma, hue in degrees."""

RGB_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
"""Linear sRGB to cone responses."""
LMS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
"""Their cube roots to lightness, a and b."""
