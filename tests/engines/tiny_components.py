"""Tiny networks of every kind, exported, and a tiny component that is stored, so that the base tests have one without torch.

``python tests/engines/tiny_components.py`` writes the stored one again (torch and openvino are needed).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

GOLDEN = Path(__file__).parent / "golden"
STORED = "tiny"

Inputs = dict[str, npt.NDArray[Any]]


def unet_inputs(rows: int = 2, size: int = 8, length: int = 5, seed: int = 0) -> Inputs:
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> npt.NDArray[Any]:
        return random.standard_normal(shape, dtype=np.float32)

    t = random.uniform(0, 1000, rows).astype(np.float32)
    return {"x": normal(rows, 4, size, size), "t": t, "tokens": normal(rows, length, 24), "added": normal(rows, 64)}


def randomised(module: Any, seed: int = 0) -> Any:
    """Small random weights everywhere: layers that start at zero would hide what lies before them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            scale = 0.1 if value.dim() == 1 else value[0].numel() ** -0.5
            value.copy_(value.round() + scale * torch.randn(value.shape, generator=generator))
    return module.eval()


def tiny_unet() -> Any:
    from chashka.nets.configs import UNetConfig
    from chashka.nets.unet import UNet

    cfg = UNetConfig(
        in_channels=4,
        out_channels=4,
        width=16,
        mult=(1, 2),
        res_blocks=1,
        attention_levels=(1,),
        head_width=16,
        context=24,
        resample="resblock",
        scale_shift=True,
        qk_norm=True,
        norm_groups=4,
        places=2,
    )
    return randomised(UNet(cfg))


def export_unet(folder: Path, name: str = STORED) -> Any:
    """The component and the module that was exported."""
    import torch

    from chashka.engines.export import export_component

    module, examples = tiny_unet(), {k: torch.from_numpy(v) for k, v in unet_inputs(2, 4, 3).items()}
    return export_component(module, name, examples, list(examples), ["out"], folder, {"latent_scale": "1.5"}), module


def components() -> dict[str, tuple[Any, Inputs, Inputs, list[str]]]:
    """name → (module, inputs to export with, other inputs to compare with, outputs), for all classes of the teacup."""
    from chashka.nets import configs as c
    from chashka.nets.autoencoder import Decoder, Encoder
    from chashka.nets.kandinsky_text import KandinskyTextHead
    from chashka.nets.multilingual import ContrastiveTextEncoder, T5TextEncoder
    from chashka.nets.teacup_configs import TEACUP_AUTOENCODER
    from chashka.nets.upscaler import Upscaler

    random = np.random.default_rng(0)

    def normal(*shape: int) -> npt.NDArray[Any]:
        return random.standard_normal(shape, dtype=np.float32)

    def texts(rows: int, length: int) -> Inputs:
        mask = np.ones((rows, length), np.float32)
        mask[-1, 1 + length // 2 :] = 0
        return {"ids": random.integers(1, 90, (rows, length)), "mask": mask}

    def heads(rows: int, length: int) -> Inputs:
        return {"tokens1": normal(rows, length, 24), "pooled1": normal(rows, 24), "tokens2": normal(rows, length, 16)}

    auto = dataclasses.replace(TEACUP_AUTOENCODER, width=16, decoder_width=16, z_channels=4, norm_groups=4)
    text = c.TextEncoderConfig(vocab=96, embed=16, width=24, layers=1, heads=2, pooled=24)
    t5 = c.T5Config(vocab=96, embed=8, width=16, layers=1, heads=2, ff=24)
    head = c.TextHeadConfig(tokens1=24, pooled1=24, tokens2=16, context=24, added=64, heads=2)
    return {
        "unet": (tiny_unet(), unet_inputs(2, 4, 3), unet_inputs(3, 8, 6), ["out"]),
        "encoder": (
            randomised(Encoder(auto)),
            {"pixels": normal(1, 4, 32, 32)},
            {"pixels": normal(2, 4, 48, 64)},
            ["moments"],
        ),
        "decoder": (
            randomised(Decoder(auto)),
            {"latents": normal(1, 4, 2, 2)},
            {"latents": normal(2, 4, 3, 4)},
            ["pixels"],
        ),
        "text_contrastive": (randomised(ContrastiveTextEncoder(text)), texts(2, 4), texts(3, 31), ["tokens", "pooled"]),
        "text_t5": (randomised(T5TextEncoder(t5)), texts(2, 4), texts(3, 31), ["tokens"]),
        "text_head": (randomised(KandinskyTextHead(head)), heads(2, 3), heads(3, 7), ["tokens", "added"]),
        "upscaler": (
            randomised(Upscaler(c.UpscalerConfig(width=12, blocks=2))),
            {"pixels": normal(1, 4, 8, 8)},
            {"pixels": normal(2, 4, 24, 17)},
            ["enlarged"],
        ),
    }


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    _, unet = export_unet(GOLDEN)
    rounded = unet.half().float()
    cases = [(2, 8, 5), (1, 4, 9)]
    with torch.no_grad():
        wanted = [rounded(**{k: torch.from_numpy(v) for k, v in unet_inputs(*case).items()}).numpy() for case in cases]
    np.savez(GOLDEN / "tiny_out.npz", **{"_".join(map(str, c)): w for c, w in zip(cases, wanted, strict=True)})
