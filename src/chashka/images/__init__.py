"""Pictures in and out: files ⇄ uint8 arrays with straight alpha ⇄ what networks see, traced curves, and the metadata in files."""

from chashka.images.canvas import extend
from chashka.images.metadata import Label, a1111_parameters, describe, enlarged_label, read_metadata, xmp_packet
from chashka.images.pixels import flatten, from_network, grid, on_colour, resize, to_network
from chashka.images.reading import MAX_PIXELS, blurred, fit_mask, read, read_mask
from chashka.images.tracing import require_tracer
from chashka.images.writing import SUFFIXES, Labelled, save, save_new, slug

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Label",
    "Labelled",
    "a1111_parameters",
    "blurred",
    "describe",
    "enlarged_label",
    "extend",
    "fit_mask",
    "flatten",
    "from_network",
    "grid",
    "on_colour",
    "read",
    "read_mask",
    "read_metadata",
    "require_tracer",
    "resize",
    "save",
    "save_new",
    "slug",
    "to_network",
    "xmp_packet",
]
