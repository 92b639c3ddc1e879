"""The teacup's networks: the shapes and promises of docs/networks.md, and the sizes that it states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from whole_autoencoder import AutoencoderKL

from chashka.nets.autoencoder import Decoder, Downsample, Encoder, Upsample
from chashka.nets.configs import AutoencoderConfig, UNetConfig
from chashka.nets.image_tower import ImageTower
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.multilingual import ContrastiveTextEncoder, T5Decoder, T5TextEncoder
from chashka.nets.teacup_configs import (
    TEACUP_AUTOENCODER,
    TEACUP_IMAGE_TOWER,
    TEACUP_T5,
    TEACUP_TEXT,
    TEACUP_TEXT_HEAD,
    TEACUP_UNET,
    TEACUP_UPSCALER,
)
from chashka.nets.unet import UNet
from chashka.nets.upscaler import Upscaler

pytestmark = pytest.mark.torch

VOCAB = 300
TEXT, T5 = replace(TEACUP_TEXT, vocab=VOCAB), replace(TEACUP_T5, vocab=VOCAB)  # the teacup's but for the table's length
LENGTHS = (3, 9, 2, 6)
"""Ids in each row of ``texts``; the third is the empty text (bos, eos)."""


def built(module: nn.Module) -> nn.Module:
    """With every weight drawn afresh by name, so that nothing that starts at zero or one hides a mistake."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.05)
    return module.eval()


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """ids (4, 9) and mask: rows of ``LENGTHS`` pieces, padded with 0."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(4, VOCAB, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]).float()
    ids[:, 0] = 1
    ids[torch.arange(len(LENGTHS)), torch.tensor(LENGTHS) - 1] = 2
    return ids * mask.long(), mask


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def keys(module: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in module().state_dict().items()}


# The two halves of the autoencoder


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_codec_shapes(size: tuple[int, int]) -> None:
    height, width = size
    moments = built(Encoder(TEACUP_AUTOENCODER))(draw(2, 4, height, width).clamp(-1, 1))
    assert moments.shape == (2, 32, height // 16, width // 16)
    pixels = built(Decoder(TEACUP_AUTOENCODER))(moments[:, :16])
    assert pixels.shape == (2, 4, height, width)
    assert moments.dtype == pixels.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("stem", [1, 2, 4])
def test_the_way_there_and_back_keeps_the_size(stem: int, shortcuts: bool) -> None:
    config = AutoencoderConfig(
        in_channels=4,
        out_channels=4,
        width=8,
        mult=(1, 2, 2),
        res_blocks=1,
        decoder_width=16,
        decoder_mult=(1, 2, 2),
        decoder_res_blocks=1,
        stem=stem,
        shortcuts=shortcuts,
        norm_groups=4,
    )
    model, factor = built(AutoencoderKL(config)), 4 * stem
    moments = model.encode(draw(1, 4, 2 * factor, 3 * factor))
    assert moments.shape == (1, 8, 2, 3)
    assert model.decode(moments[:, :4]).shape == (1, 4, 2 * factor, 3 * factor)


@torch.no_grad()
@pytest.mark.parametrize(("coarse", "fine"), [(8, 4), (8, 8), (4, 8)])
def test_shortcuts_alone_lose_nothing(coarse: int, fine: int) -> None:
    """With the convolutions at zero, what the upper path spreads out the lower one folds back."""
    up, down = Upsample(coarse, fine, TEACUP_AUTOENCODER), Downsample(fine, coarse, TEACUP_AUTOENCODER)
    for conv in (up.conv, down.conv):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
    x = draw(2, coarse, 3, 5)
    assert up(x).shape == (2, fine, 6, 10)
    assert torch.allclose(down(up(x)), x, atol=1e-6)


# The text encoders and the head


@torch.no_grad()
def test_contrastive_text_encoder() -> None:
    ids, mask = texts()
    tokens, pooled = built(ContrastiveTextEncoder(TEXT))(ids, mask)
    assert tokens.shape == (4, 9, 256)
    assert pooled.shape == (4, 256)
    assert torch.equal(tokens[mask == 0], torch.zeros_like(tokens[mask == 0]))
    assert torch.allclose(pooled.norm(dim=1), torch.full((4,), 16.0), atol=1e-4)


@torch.no_grad()
def test_t5_text_encoder() -> None:
    ids, mask = texts()
    tokens = built(T5TextEncoder(T5))(ids, mask)
    assert tokens.shape == (4, 9, 192)
    assert torch.equal(tokens[mask == 0], torch.zeros_like(tokens[mask == 0]))


@torch.no_grad()
def test_padding_does_not_change_a_text() -> None:
    """Every row alone, without padding, gives what it gives in the padded batch."""
    ids, mask = texts()
    contrastive, t5 = built(ContrastiveTextEncoder(TEXT)), built(T5TextEncoder(T5))
    tokens, pooled = contrastive(ids, mask)
    tokens5 = t5(ids, mask)
    for row, length in enumerate(LENGTHS):
        alone, ones = ids[row : row + 1, :length], torch.ones(1, length)
        tokens_alone, pooled_alone = contrastive(alone, ones)
        assert torch.allclose(tokens_alone[0], tokens[row, :length], atol=1e-5)
        assert torch.allclose(pooled_alone[0], pooled[row], atol=1e-5)
        assert torch.allclose(t5(alone, ones)[0], tokens5[row, :length], atol=1e-5)


@torch.no_grad()
def test_the_order_of_the_pieces_matters() -> None:
    ids, ones = torch.tensor([[1, 7, 8, 2], [1, 8, 7, 2]]), torch.ones(2, 4)
    _, pooled = built(ContrastiveTextEncoder(TEXT))(ids, ones)
    tokens = built(T5TextEncoder(T5))(ids, ones)
    assert not torch.allclose(pooled[0], pooled[1], atol=1e-3)
    assert not torch.allclose(tokens[0, 1], tokens[1, 2], atol=1e-3)


@torch.no_grad()
def test_t5_decoder_sees_no_later_piece_and_no_padding() -> None:
    decoder = built(T5Decoder(T5))
    ids, mask = texts()
    tokens, previous = draw(4, 9, 192) * mask[..., None], ids[:, :6].clone()
    logits = decoder(previous, tokens, mask)
    assert logits.shape == (4, 6, VOCAB)
    previous[:, 4] = 77
    later = decoder(previous, tokens, mask)
    assert torch.equal(later[:, :4], logits[:, :4])
    assert not torch.allclose(later[:, 4:], logits[:, 4:])
    alone = decoder(ids[:1, :6], tokens[:1, : LENGTHS[0]], mask[:1, : LENGTHS[0]])
    assert torch.allclose(alone[0], logits[0], atol=1e-5)
    other = draw(4, 9, 192, seed=1) * mask[..., None]
    assert not torch.allclose(decoder(ids[:, :6], other, mask), logits)


@torch.no_grad()
def test_text_head_joins_both_encoders() -> None:
    head = built(KandinskyTextHead(TEACUP_TEXT_HEAD))
    parts = draw(2, 9, 256), draw(2, 256), draw(2, 9, 192)
    tokens, added = head(*parts)
    assert tokens.shape == (2, 18, TEACUP_TEXT_HEAD.context)
    assert added.shape == (2, TEACUP_TEXT_HEAD.added)
    changed, _ = head(parts[0], parts[1], draw(2, 9, 192, seed=1))
    assert torch.equal(changed[:, :9], tokens[:, :9])  # the first encoder's half stands first
    assert not torch.allclose(changed[:, 9:], tokens[:, 9:])


def test_the_parts_fit_each_other() -> None:
    head, unet = TEACUP_TEXT_HEAD, TEACUP_UNET
    assert (head.tokens1, head.pooled1, head.tokens2) == (TEACUP_TEXT.width, TEACUP_TEXT.pooled, TEACUP_T5.width)
    assert (head.context, head.added) == (unet.context, 4 * unet.width)
    assert unet.in_channels == unet.out_channels == TEACUP_AUTOENCODER.z_channels
    assert TEACUP_TEXT.vocab == TEACUP_T5.vocab
    assert TEACUP_TEXT.pooled == TEACUP_IMAGE_TOWER.pooled


# The U-Net and the picture tower


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return built(UNet(TEACUP_UNET))


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
def test_unet_shapes_and_what_it_listens_to(size: tuple[int, int], unet: nn.Module) -> None:
    x, t, tokens, added = draw(2, 16, *size), torch.tensor([999.0, 12.5]), draw(2, 10, 256), draw(2, 256)
    out = unet(x=x, t=t, tokens=tokens, added=added)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    for other in ({"t": t + 100}, {"tokens": -tokens}, {"added": -added}):
        assert not torch.allclose(unet(**{"x": x, "t": t, "tokens": tokens, "added": added} | other), out, atol=1e-4)


@torch.no_grad()
def test_rows_of_the_unet_do_not_see_each_other(unet: nn.Module) -> None:
    x, t, tokens, added = draw(3, 16, 8, 8), torch.tensor([1.0, 500.0, 900.0]), draw(3, 10, 256), draw(3, 256)
    out = unet(x, t, tokens, added)
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.allclose(unet(x[one], t[one], tokens[one], added[one]), out[one], atol=1e-5)


@torch.no_grad()
def test_image_tower() -> None:
    tower = built(ImageTower(TEACUP_IMAGE_TOWER))
    pixels = draw(3, 4, 64, 64).clamp(-1, 1)
    pooled = tower(pixels)
    assert pooled.shape == (3, 256)
    assert torch.allclose(pooled.norm(dim=1), torch.full((3,), 16.0), atol=1e-4)


@torch.no_grad()
def test_an_untrained_upscaler_is_bicubic() -> None:
    pixels = draw(2, 4, 12, 20)
    plain = torch.nn.functional.interpolate(pixels, scale_factor=2.0, mode="bicubic", align_corners=False)
    assert torch.equal(Upscaler(TEACUP_UPSCALER)(pixels), plain)
    enlarged = built(Upscaler(TEACUP_UPSCALER))(pixels)
    assert enlarged.shape == (2, 4, 24, 40) and not torch.allclose(enlarged, plain, atol=1e-2)


@torch.no_grad()
def test_nothing_beyond_its_reach_changes_what_the_upscaler_says() -> None:
    config = replace(TEACUP_UPSCALER, width=8, blocks=2)
    net, pixels = built(Upscaler(config)), draw(1, 4, 8, 40)
    other = pixels.clone()
    other[..., 30] += 1
    changed = (net(other) - net(pixels)).abs().amax((0, 1, 2)) > 0
    places = torch.nonzero(changed).squeeze(1) // 2
    assert 30 - config.reach == int(places.min()) and int(places.max()) == 30 + config.reach


# With its extras off a teacup network is an original one


def test_qk_norm_only_adds_keys() -> None:
    plain, normed = (keys(lambda on=on: UNet(replace(TEACUP_UNET, qk_norm=on))) for on in (False, True))
    assert plain.items() <= normed.items()
    added = normed.keys() - plain.keys()
    assert added
    assert all(key.endswith(("q_norm.scale", "k_norm.scale")) for key in added)


def test_the_other_extras_of_the_unet_leave_keys_and_shapes() -> None:
    config = UNetConfig(3, 6, 32, (1, 2), 1, (1,), head_width=16, resample="resblock", scale_shift=True)
    original = keys(lambda: UNet(config))
    assert keys(lambda: UNet(replace(config, dropout=0.1, norm_groups=16))) == original


def test_extras_of_the_autoencoder_leave_the_original_keys() -> None:
    """Shapes change with the stem and the shortcuts; names do not, and nothing but the middle's attention ever goes."""
    config = AutoencoderConfig(width=32, mult=(1, 2, 2), decoder_width=32, decoder_mult=(1, 2, 2))
    original = keys(lambda: AutoencoderKL(config))
    assert keys(lambda: AutoencoderKL(replace(config, norm_groups=16))) == original
    assert keys(lambda: AutoencoderKL(replace(config, stem=4))).keys() == original.keys()
    without = keys(lambda: AutoencoderKL(replace(config, mid_attention=False)))
    gone = original.keys() - without.keys()
    assert without.items() <= original.items()
    assert gone
    assert all(".mid.attn_1." in key for key in gone)
    folded = keys(lambda: AutoencoderKL(replace(config, shortcuts=True)))
    # The resamplers widen by themselves then, so that a block after them needs no 1×1 of its own.
    assert folded.keys() <= original.keys()
    assert all(".nin_shortcut." in key for key in original.keys() - folded.keys())


# The sizes that docs/networks.md states


def components() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]]:
    """Every network with the inputs of one call (call under ``torch.device('meta')``)."""
    ids, mask = torch.zeros(1, 32, dtype=torch.int64), torch.ones(1, 32)
    wide, pooled, narrow = torch.zeros(1, 32, 256), torch.zeros(1, 256), torch.zeros(1, 32, 192)
    latents = torch.zeros(1, 16, 16, 16)
    return {
        "encoder": (Encoder(TEACUP_AUTOENCODER), (torch.zeros(1, 4, 256, 256),)),
        "decoder": (Decoder(TEACUP_AUTOENCODER), (latents,)),
        "text_contrastive": (ContrastiveTextEncoder(TEACUP_TEXT), (ids, mask)),
        "text_t5": (T5TextEncoder(TEACUP_T5), (ids, mask)),
        "text_head": (KandinskyTextHead(TEACUP_TEXT_HEAD), (wide, pooled, narrow)),
        "unet": (UNet(TEACUP_UNET), (latents, torch.zeros(1), torch.zeros(1, 64, 256), pooled)),
        "unet in the package, 96 wide, with a mask": (
            UNet(replace(TEACUP_UNET, width=96, in_channels=33)),
            (torch.zeros(1, 33, 16, 16), torch.zeros(1), torch.zeros(1, 64, 256), torch.zeros(1, 384)),
        ),
        "picture": (ImageTower(TEACUP_IMAGE_TOWER), (torch.zeros(1, 4, 64, 64),)),
        "upscaler": (Upscaler(TEACUP_UPSCALER), (torch.zeros(1, 4, 256, 256),)),
        "T5 decoder (training)": (T5Decoder(TEACUP_T5), (ids, narrow, mask)),
    }


@torch.no_grad()
def measured() -> list[str]:
    """The table's lines, as they ought to be."""
    lines = []
    with torch.device("meta"):
        for name, (module, inputs) in components().items():
            with FlopCounterMode(display=False) as counter:
                module.eval()(*inputs)
            parameters = sum(value.numel() for value in module.parameters())
            lines.append(f"| {name} | {parameters:,} | {counter.get_total_flops() / 1e9:.2f} |")
    return lines


def test_sizes_in_the_documentation(project: Path) -> None:
    page = (project / "docs" / "networks.md").read_text(encoding="utf-8").partition("\n## Sizes\n")[2]
    stated = [line for line in page.partition("\n## ")[0].splitlines() if line.startswith("|")][2:]
    wanted = measured()
    assert stated == wanted, "the table of sizes in docs/networks.md should read:\n" + "\n".join(wanted)
