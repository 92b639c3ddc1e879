"""The mathematics of diffusion: schedules, the denoiser, guidance, samplers and noise. No torch is imported here."""

from chashka.diffusion.arrays import Array, namespace, quantile
from chashka.diffusion.denoiser import PREDICTIONS, Conditioning, Denoiser, Network, Prediction
from chashka.diffusion.forward import forward, forward_step, levels
from chashka.diffusion.guidance import (
    Before,
    Denoise,
    cfg,
    cfg_rescale,
    composed,
    dynamic_threshold,
    gradient,
    inpaint,
    mask_channels,
    noised_known,
    static_threshold,
)
from chashka.diffusion.noise import START, Noise, PictureNoise, VariedNoise, picture_noise
from chashka.diffusion.sampler_names import sampler, sampler_name, spaced_sampler, with_sampler
from chashka.diffusion.samplers import SAMPLERS, Sampler
from chashka.diffusion.schedule import FLOW_SPACINGS, TABLE_SPACINGS, Flow, NoiseSchedule, Table
from chashka.diffusion.steps import Step
from chashka.diffusion.straight import samplers_along

__all__ = [
    "FLOW_SPACINGS",
    "PREDICTIONS",
    "SAMPLERS",
    "START",
    "TABLE_SPACINGS",
    "Array",
    "Before",
    "Conditioning",
    "Denoise",
    "Denoiser",
    "Flow",
    "Network",
    "Noise",
    "NoiseSchedule",
    "PictureNoise",
    "Prediction",
    "Sampler",
    "Step",
    "Table",
    "VariedNoise",
    "cfg",
    "cfg_rescale",
    "composed",
    "dynamic_threshold",
    "forward",
    "forward_step",
    "gradient",
    "inpaint",
    "levels",
    "mask_channels",
    "namespace",
    "noised_known",
    "picture_noise",
    "quantile",
    "sampler",
    "sampler_name",
    "samplers_along",
    "spaced_sampler",
    "static_threshold",
    "with_sampler",
]
