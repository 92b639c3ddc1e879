"""Weight files in and out: safetensors with the config in the metadata, sha256, strict loading.

Torch's own files are read by ``checkpoints.torch_file``, which is imported where it is needed: drawing shall start fast.
"""

from chashka.checkpoints.safetensors_file import GRAPH_TENSOR, layout, read_metadata, read_tensors, sha256, write
from chashka.checkpoints.strict import load_strict

__all__ = [
    "GRAPH_TENSOR",
    "layout",
    "load_strict",
    "read_metadata",
    "read_tensors",
    "sha256",
    "write",
]
