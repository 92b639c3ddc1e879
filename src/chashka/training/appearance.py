"""What concepts look like, in few numbers: principal components of the mean latents of a concept's pictures.

A text encoder that is only told which texts mean the same may put its concepts anywhere; a U-Net then has to learn a thousand
arbitrary codes by heart. Codes made of pictures (as CLIP's are, by its image tower; here by the frozen autoencoder and linear
algebra) say what stands where, and can be read linearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class Appearance:
    """Unit vectors of E numbers: ``concept`` (C, E), the mean over styles, and ``styled`` (C, S, E); 0 where no picture is."""

    concept: torch.Tensor
    styled: torch.Tensor


def appearance(
    latents: torch.Tensor,
    concept: torch.Tensor,
    style: torch.Tensor,
    weight: torch.Tensor,
    shape: tuple[int, int],
    size: int,
) -> Appearance:
    """From latents (N, C, h, w) with labels and weights (N,); ``shape``: numbers of concepts and of styles; ``size``: E.

    Components are those of the concepts' means, each concept as heavy as its heaviest picture, and divided by the fourth
    root of their variance: between leaving the strong ones to rule and making noise of the weak ones as loud as they are.
    """
    concepts, styles = shape
    flat = latents.flatten(1).float()
    means, there = _means(flat, concept, weight, concepts)
    heavy = torch.zeros(concepts, device=weight.device).scatter_reduce_(0, concept, weight.float(), "amax").sqrt()
    centre = (means * heavy[:, None].square()).sum(0) / heavy.square().sum()
    rows = (means - centre) * heavy[:, None]
    # The Gram matrix is small; its eigenvectors give the components of the wide one.
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    values, vectors = values[-size:].flip(0).clamp(min=1e-9), vectors[:, -size:].flip(1)
    basis = rows.T @ (vectors / values.sqrt()) / values.pow(0.25)

    def code(mean: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        # fewer concepts than numbers: the rest are 0
        return F.pad(F.normalize((mean - centre) @ basis, dim=-1) * known[:, None], (0, size - basis.shape[1]))

    styled, styled_there = _means(flat, concept * styles + style, weight, concepts * styles)
    return Appearance(code(means, there), code(styled, styled_there).unflatten(0, (concepts, styles)))


def _means(flat: torch.Tensor, key: torch.Tensor, weight: torch.Tensor, keys: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted means (keys, D) and whether a key has any row."""
    total = torch.zeros(keys, flat.shape[1], device=flat.device).index_add_(0, key, flat * weight.float()[:, None])
    sums = torch.zeros(keys, device=flat.device).index_add_(0, key, weight.float())
    return total / sums.clamp(min=1e-9)[:, None], (sums > 0).float()
