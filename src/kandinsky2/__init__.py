"""The import name of the paper's listing, on chashka's model.

    from kandinsky2 import get_kandinsky2
    model = get_kandinsky2('cuda', task_type='text2img')
    images = model.generate_text2img('космос внутри чайной чашки', batch_size=4, h=512, w=512, num_steps=75,
        denoised_type='dynamic_threshold', dynamic_threshold_v=99.5, sampler='ddim_sampler', ddim_eta=0.01, guidance_scale=10)

Signatures, defaults and the meaning of every argument are those of the 2022 code, its inverted ``strength`` and mask
included; arguments of later versions are accepted. The published weights draw where their files are, with the numbers of 2022;
otherwise the small model inside the package does.
"""

from __future__ import annotations

from kandinsky2.model import Kandinsky2, get_kandinsky2
from kandinsky2.model2_1 import Kandinsky2_1
from kandinsky2.model2_2 import Kandinsky2_2

__all__ = ["Kandinsky2", "Kandinsky2_1", "Kandinsky2_2", "get_kandinsky2"]
