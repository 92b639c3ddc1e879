"""The contract between model families and everything above them.

A family is one package whose ``__init__`` is the declaration: presets, each with the function that opens it, and options. What is
opened carries the function ``denoise``, which composes guidance in reading order. A family's name appears in ``families/__init__``
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from chashka.diffusion import Array, Conditioning, Denoise, Denoiser, Noise, Sampler
from chashka.errors import InputError
from chashka.families.conventions import USUAL, Conventions
from chashka.prompts.tags import Weight
from chashka.request import Added, Request

RequestT = TypeVar("RequestT", bound=Request)


class Codec(Protocol):
    """Between pictures and the space that is sampled in. Pixel models have one that changes nothing."""

    @property
    def factor(self) -> int:
        """Pixels per latent, along each side."""

    @property
    def channels(self) -> int:
        """Channels of x."""

    def encode(self, pixels: Array, noise: Array | None = None) -> Array:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → x (B, C, H/factor, W/factor).

        noise: unit noise of the shape of x, to sample the encoder's distribution with; None: its mean.
        """

    def decode(self, x: Array) -> Array:
        """x (B, C, h, w) → float32 (B, 4, h·factor, w·factor), premultiplied, about [-1, 1]."""

    def tiled(self, axes: str) -> Codec:
        """The same whose pictures continue at their opposite edges. axes: of 'x' and 'y'."""

    def preview(self, x: Array) -> Array:
        """x (B, C, h, w) → float32 (B, 4, h, w), premultiplied in [-1, 1]: small, and cheap enough for every step."""


@dataclass(frozen=True, slots=True)
class Meter:
    """How much of a text a model reads: ``used`` tokens, ``cut`` that did not fit, at most ``limit``."""

    used: int
    cut: int
    limit: int


class TextEncoder(Protocol):
    """Texts to what the network is conditioned on."""

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Array] | None = None) -> Conditioning:
        """One row per text; the empty text is the unconditional one. pooled: (1, D) in place of some texts' own, by row."""

    def pooled(self, texts: Sequence[str]) -> Array:
        """What each text says as a whole, (B, D): the space that pictures and words can be mixed in."""

    def meter(self, text: str) -> Meter:
        """How much of ``text`` is read."""


class PictureEncoder(Protocol):
    """Pictures to the space of ``TextEncoder.pooled``."""

    @property
    def name(self) -> str:
        """What it is, for reports."""

    def embed(self, small: Array) -> Array:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → float32 (B, D)."""

    def encode(self, pictures: Sequence[Array]) -> Array:
        """uint8 (H, W, 4) each, straight alpha → float32 (B, D)."""


class Upscaler(Protocol):
    """Doubles pictures."""

    @property
    def reach(self) -> int:
        """How many pixels away something can still change a place: so much around a tile makes it equal to the whole."""

    def enlarge(self, pixels: Array) -> Array:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → (B, 4, 2H, 2W), about [-1, 1]."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """How a model shall be run. engine: auto, openvino, torch. device: auto, or the engine's own name. precision: see engines.

    cache_dir: where an engine may keep what it compiled and measured, for the next process; None: nowhere. loras: (file, how much
    of it) of small changes that are added to the weights. embeddings: files of new words for the text encoder. vae: file or
    folder of another autoencoder, in place of the model's own.
    """

    engine: str = "auto"
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    cache_dir: Path | None = None
    loras: tuple[tuple[Path, Weight], ...] = ()
    embeddings: tuple[Path, ...] = ()
    vae: Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One call's worth of a run, as ``generate`` hands it to a family.

    sigmas: noise levels of the whole schedule, whatever part of it is run: fractions of steps refer to it. shape: (C, h, w)
    of what is sampled. known and mask: set together, data (1, C, h, w) to keep where the mask (1, 1, h, w), in [0, 1], is 0.
    blanked: like ``known``, of the picture whose masked part is grey; set for networks that are given it (``Bundle.blanks``).
    pictures: uint8 (H, W, 4) each, what the request may refer to. rows: how many pictures this call draws.
    noise: these pictures' noise in another shape, for what is drawn before them (a prior's embeddings). first: how many steps of
    the schedule are left out at its beginning. passed: in the second pass of a drawing, the steps of the first one's schedule.
    """

    sigmas: tuple[float, ...]
    shape: tuple[int, int, int]
    known: Array = None
    mask: Array = None
    blanked: Array = None
    pictures: tuple[Array, ...] = ()
    rows: int = 1
    noise: Callable[[Sequence[int]], Noise] | None = None
    first: int = 0
    passed: int | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """One model of a family.

    open: makes a :class:`Bundle` of its files. folder: where they are; None until they are found, for models that are not in the
    package. files: each by its name, or by all the names that it may have; ``../OTHER/NAME`` is shared with another preset. area:
    pixels of the pictures it was trained on. free: it draws any size, in steps of so many pixels; 0: other sizes are drawn near
    ``area`` and brought to what was asked. multiple: width and height that it was trained with are multiples of this. summary,
    licence: one line each, for people. optional: files that it may lack; what they are for is then refused in one line. homes:
    names of folders that it is looked for in, besides its own. adapters: it takes LoRAs, embeddings and another autoencoder. look:
    opens the files so far that it is sure what they are, and gives notes about them for people; raises WeightsError for files that
    are something else.
    """

    name: str
    folder: Path | None
    files: tuple[str | tuple[str, ...], ...]
    area: int
    multiple: int
    summary: str
    licence: str
    open: Callable[[Preset, EngineChoice], Bundle]
    optional: tuple[str, ...] = ()
    free: int = 0
    homes: tuple[str, ...] = ()
    adapters: bool = False
    look: Callable[[], Sequence[str]] = lambda: ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of its files, the first one of each."""
        return tuple(entry if isinstance(entry, str) else entry[0] for entry in self.files)

    def missing(self, folder: Path) -> list[str]:
        """Which of the files are not in ``folder``, by their first names."""
        names = [(entry,) if isinstance(entry, str) else entry for entry in self.files]
        return [some[0] for some in names if not any((folder / name).is_file() for name in some)]

    @property
    def place(self) -> Path:
        """The folder of a preset that was found."""
        assert self.folder is not None, f"{self.name} was not looked for"
        return self.folder

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of its exported weight files: all that it needs, and the optional ones that are there."""
        there = (name for name in self.optional if (self.place / name).is_file())
        return tuple(name for name in (*self.needed, *there) if name.endswith(".safetensors"))

    @property
    def own_weights(self) -> tuple[str, ...]:
        """Of these the ones that are not another preset's (``../OTHER/decoder.safetensors``)."""
        return tuple(name for name in self.weights if not name.startswith("../"))

    @property
    def shares(self) -> bool:
        """Whether some of its files are another preset's, so that no folder alone can be this model."""
        return any(name.startswith("../") for name in self.needed)

    def home(self, component: str) -> Path:
        """The folder of an exported component."""
        named = next(name for name in (*self.needed, *self.optional) if Path(name).stem == component)
        return (self.place / named).parent.resolve()


@dataclass(frozen=True, slots=True)
class Family:
    """A declaration: what it is called, which models it has by name, what a request to it may say.

    recognise: the model that a file or folder is, by a look at it; None for none of this family's. Raises WeightsError for one
    that it knows and cannot use. autoencoder: whether one is an autoencoder alone that its models can be opened with; raises alike.
    """

    name: str
    presets: Mapping[str, Preset]
    options: type[Request]
    recognise: Callable[[Path], Preset | None] = lambda _: None
    autoencoder: Callable[[Path], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is loaded.

    denoise: turns a request into a function for samplers. defaults: fields that requests leave open, the model's own; fast:
    those of quick requests. rows: how many pictures are drawn in one call at most. masked: the network takes the mask and what
    is kept as channels (an inpainting network). picture, upscaler: None where the model has none. weakened: the network can be
    asked without some of its blocks (``keep``). samplers: the model's own, beyond ``SAMPLERS`` or in place of some.
    conventions: what is done another implementation's way, for a request. blanks: a masked network is given the latents of the
    picture whose masked part is grey. exact: opens the same model in float32; None where it is in float32. notes: what people
    should know of a request to it, one sentence each. loras: names of those whose changes are in the weights: their files' stems.
    vae: file or folder of the autoencoder, where it is not the model's own. weights: the file that the U-Net's come from. added:
    all of these and the embeddings, for metadata.
    """

    family: Family
    preset: Preset
    denoiser: Denoiser
    codec: Codec
    text: TextEncoder
    denoise: Callable[[Bundle, Any, Plan], Denoise]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 4
    engine: str = ""
    masked: bool = False
    picture: PictureEncoder | None = None
    upscaler: Upscaler | None = None
    fast: Mapping[str, Any] = field(default_factory=dict)
    weakened: bool = False
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    conventions: Callable[[Any], Conventions] = lambda _: USUAL
    blanks: bool = False
    exact: Callable[[], Bundle] | None = None
    notes: Callable[[Any], Sequence[str]] = lambda _: ()
    loras: tuple[str, ...] = ()
    vae: Path | None = None
    weights: Path | None = None
    added: tuple[Added, ...] = ()

    @property
    def model(self) -> str:
        """The name that people use, for example ``kandinsky-teacup``."""
        return f"{self.family.name}-{self.preset.name}"

    def meters(self, request: Request) -> tuple[Meter, Meter]:
        """How much of the prompt and of the negative prompt is read. request: complete; a family's own grammar counts."""
        own = getattr(self.text, "meters", None)
        if own is None:
            return self.text.meter(request.prompt), self.text.meter(request.negative_prompt)
        levels = self.conventions(request).levels(self.denoiser.schedule, request, False)
        over = 0
        if request.hires_scale is not None:
            second = request.with_fields(strength=request.hires_strength, steps=request.hires_steps or request.steps)
            over = len(self.conventions(second).levels(self.denoiser.schedule, second, True).run) - 1
        told: tuple[Meter, Meter] = own(request, len(levels.sigmas) - 1, over)
        return told

    def tiled(self, axes: str) -> Bundle:
        """The same whose pictures continue at their opposite edges. axes: of 'x' and 'y'. Raises InputError where it cannot."""
        network = getattr(self.denoiser.network, "tiled", None)
        if network is None:
            raise InputError(f"tiling: {self.model} cannot; leave it out")
        return replace(self, denoiser=replace(self.denoiser, network=network(axes)), codec=self.codec.tiled(axes))

    def careful(self, decoding: bool) -> Bundle:
        """The same in less memory: one picture at a time. decoding: decoded in small tiles too, where the codec can."""
        smaller = getattr(self.codec, "careful", None) if decoding else None
        return replace(self, rows=1, codec=self.codec if smaller is None else smaller())

    def drafting(self) -> Bundle:
        """The same with the network that drafts are drawn with; itself where the model has one network for both."""
        network = getattr(self.denoiser.network, "quick", None)
        return self if network is None else replace(self, denoiser=replace(self.denoiser, network=network))

    def request(self, **fields: Any) -> Request:
        """This family's options, checked, with what is absent filled in from the model's defaults."""
        return self.filled(self.family.options(**fields))

    def filled(self, request: RequestT) -> RequestT:
        """``request`` with what it leaves open taken from the model's defaults, the quick ones if it is ``fast``."""
        return request.filled({**self.defaults, **self.fast} if request.fast else self.defaults)
