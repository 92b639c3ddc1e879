"""The teacup's text encoders: what stands in padding, T5's buckets of relative position, and half precision."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from chashka.nets.configs import T5Config, TextEncoderConfig
from chashka.nets.multilingual import ContrastiveTextEncoder, RelativePosition, T5TextEncoder

pytestmark = pytest.mark.torch
TEXT = TextEncoderConfig(vocab=300, embed=8, width=32, layers=2, heads=4, max_length=16, pooled=24)
T5 = T5Config(vocab=300, embed=8, width=24, layers=2, heads=3, ff=32)
IDS = torch.tensor([[1, 290, 270, 2, 0, 0], [1, 261, 262, 263, 264, 2]])
MASK = (IDS > 0).float()


def contrastive() -> ContrastiveTextEncoder:
    torch.manual_seed(0)
    return ContrastiveTextEncoder(TEXT).eval()


def t5() -> T5TextEncoder:
    torch.manual_seed(0)
    return T5TextEncoder(T5).eval()


@torch.no_grad()
def test_ids_in_padding_change_nothing() -> None:
    longer, mask = F.pad(IDS, (0, 5), value=77), F.pad(MASK, (0, 5))
    first, second = contrastive(), t5()
    tokens, pooled = first(IDS, MASK)
    tokens_padded, pooled_padded = first(longer, mask)
    assert torch.allclose(tokens_padded[:, :6], tokens, atol=1e-5)
    assert torch.allclose(pooled_padded, pooled, atol=1e-5)
    assert torch.allclose(second(longer, mask)[:, :6], second(IDS, MASK), atol=1e-5)


def bucket(distance: int, cfg: T5Config, *, both_ways: bool) -> int:
    """T5's buckets in plain Python (arXiv 1910.10683, section 2.1; distance is key minus query)."""
    buckets, start = cfg.buckets, 0
    if both_ways:
        buckets //= 2
        start = buckets if distance > 0 else 0
    away = abs(distance) if both_ways else max(-distance, 0)
    exact = buckets // 2
    if away < exact:
        return start + away
    grown = math.log(away / exact) / math.log(cfg.max_distance / exact) * (buckets - exact)
    return start + min(exact + int(grown), buckets - 1)


@torch.no_grad()
@pytest.mark.parametrize("both_ways", [True, False])
def test_relative_positions_are_t5s_buckets(both_ways: bool) -> None:
    cfg = replace(T5, buckets=16, max_distance=30)  # 30, so that no distance lies on a bucket's edge in float32
    relative = RelativePosition(cfg, both_ways=both_ways)
    relative.bias.weight.copy_(torch.arange(16.0)[:, None].expand(16, 3))
    out = relative(torch.arange(40))
    assert out.shape == (1, 3, 40, 40)
    wanted = [[bucket(key - query, cfg, both_ways=both_ways) for key in range(40)] for query in range(40)]
    assert torch.equal(out[0, 0].long(), torch.tensor(wanted))


@torch.no_grad()
def test_half_precision_around_the_encoders_stays_close() -> None:
    """Training runs under bfloat16 autocast; masks, norms and positions must survive it."""
    first, second = contrastive(), t5()
    with torch.autocast("cpu", torch.bfloat16):
        rough, other = first(IDS, MASK)[1], second(IDS, MASK)
    assert F.cosine_similarity(rough.float(), first(IDS, MASK)[1]).min() > 0.99
    assert not other[0, 4:].any()
    assert float((other.float() - second(IDS, MASK)).abs().max()) < 0.1
