"""Recipes: everything that decides a training run, as frozen dataclasses that are stored beside its weights.

A recipe is JSON on disk (``docs/models/recipes/*.json``) or one of the names in ``catalogue.RECIPES``. It holds no path: shards
and the run folder are arguments, so that the same recipe runs anywhere. A field's default is what recipes meant before the
field was there. Only the standard library is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chashka.errors import TrainingError
from chashka.nets.configs import (
    AutoencoderConfig,
    ImageTowerConfig,
    JudgeConfig,
    T5Config,
    TextEncoderConfig,
    TextHeadConfig,
    UNetConfig,
    UpscalerConfig,
)
from chashka.nets.teacup_configs import (
    JUDGE,
    TEACUP_AUTOENCODER,
    TEACUP_IMAGE_TOWER,
    TEACUP_T5,
    TEACUP_TEXT,
    TEACUP_TEXT_HEAD,
    TEACUP_UNET,
    TEACUP_UPSCALER,
)
from chashka.training.run import Optimiser as Optimiser  # the words that recipes are written in come from here
from chashka.training.run import Run as Run


@dataclass(frozen=True, slots=True)
class AutoencoderRecipe:
    """KL autoencoder on premultiplied RGBA crops; ``freeze_encoder`` trains the decoder alone (latents keep their meaning).

    ``crop`` in pixels; ``equivariance`` is the share of steps that decode a down-scaled latent against the down-scaled picture
    (EQ-VAE, arXiv 2502.09509); ``latent_noise`` is the strongest noise that is added to latents, in their own deviation, each
    picture's between none and that: a decoder that never saw any makes blotches of a sampler's small errors.
    """

    stage: str = "autoencoder"
    run: Run = field(
        default_factory=lambda: Run(
            batch=16, minutes=60.0, optimiser=Optimiser(lr=8e-4, betas=(0.9, 0.95), weight_decay=0.0, decay_share=0.35)
        )
    )
    network: AutoencoderConfig = TEACUP_AUTOENCODER
    crop: int = 128
    kl: float = 1e-5
    equivariance: float = 0.25
    composite: float = 1.0
    alpha: float = 0.5
    gradient: float = 0.5
    freeze_encoder: bool = False
    latent_noise: float = 0.0


@dataclass(frozen=True, slots=True)
class ContrastiveRecipe:
    """Texts against one prototype per concept and one per style (all concepts are negatives of each other).

    ``temperature`` multiplies cosines. ``appearance`` of the pooled numbers say what the concept looks like
    (training/appearance.py; needs the frozen autoencoder; 0: none do), ``looks`` is the weight of their own loss. The main
    languages come ``main_boost`` times as often as others; ``often`` names more languages and how often they come.
    ``sentences`` is the weight of captions of composed scenes (0: none), those of ``sentence_scenes`` scenes a step.

    With ``kept`` the run is another one (training/tokens.py): the vector stays where it is when the run begins, with this weight on
    1 - cosine, and the tokens learn to be translated, ``translated`` captions of composed scenes a step.
    """

    stage: str = "clip"
    run: Run = field(
        default_factory=lambda: Run(
            batch=512, minutes=17.0, log_every=50, optimiser=Optimiser(lr=2e-3, warmup_steps=100, decay_share=0.4)
        )
    )
    text: TextEncoderConfig = TEACUP_TEXT
    temperature: float = 20.0
    appearance: int = 128
    looks: float = 2.0
    token_noise: float = 0.03
    main_boost: float = 8.0
    often: tuple[tuple[str, float], ...] = ()
    sentences: float = 0.0
    sentence_scenes: int = 128
    kept: float = 0.0
    translated: int = 384


@dataclass(frozen=True, slots=True)
class T5Recipe:
    """Text to text: a caption in any language in, the concept's English name and style out; the decoder is thrown away.

    ``sentences`` is the weight of captions of composed scenes (0: none), ``sentence_captions`` of them a step: what goes in is a
    caption in any of the grammar's languages, what comes out the same scene's English one.
    """

    stage: str = "t5"
    run: Run = field(
        default_factory=lambda: Run(batch=256, minutes=20.0, optimiser=Optimiser(lr=2e-3, decay_share=0.4))
    )
    text: T5Config = TEACUP_T5
    decoder_layers: int = 2
    token_noise: float = 0.03
    main_boost: float = 8.0
    sentences: float = 0.0
    sentence_captions: int = 512


@dataclass(frozen=True, slots=True)
class PictureRecipe:
    """Pictures into the space of the frozen contrastive text encoder: to their concept's names and away from all others'.

    ``temperature`` multiplies cosines; ``regression`` weighs 1 - cosine to what a caption says of the concept in the
    picture's own style; ``ground`` is the share of pictures that stand on a plain colour, as photographs and scans do.
    """

    stage: str = "picture"
    run: Run = field(
        default_factory=lambda: Run(
            batch=128, minutes=20.0, log_every=50, optimiser=Optimiser(lr=2e-3, warmup_steps=100, decay_share=0.4)
        )
    )
    network: ImageTowerConfig = TEACUP_IMAGE_TOWER
    temperature: float = 20.0
    regression: float = 2.0
    ground: float = 0.25


@dataclass(frozen=True, slots=True)
class UpscaleRecipe:
    """Pictures at half their size back to the whole; see training/upscale.py.

    ``crop``: side of what the network sees, in pixels. ``degraded``: share of presentations whose input is worse than a
    halved drawing: as the frozen autoencoder gives it back where that was kept, which is of the share ``decoded`` of
    all pictures, otherwise a little blurred. ``ground``: share on a plain colour, as pictures without alpha are. ``alpha``,
    ``gradient``: weights of these losses beside that of the pixels.
    """

    stage: str = "upscale"
    run: Run = field(
        default_factory=lambda: Run(
            batch=16, minutes=60.0, optimiser=Optimiser(lr=1e-3, weight_decay=0.0, warmup_steps=100, decay_share=0.5)
        )
    )
    network: UpscalerConfig = TEACUP_UPSCALER
    crop: int = 48
    degraded: float = 0.5
    decoded: float = 0.5
    ground: float = 0.25
    alpha: float = 0.5
    gradient: float = 0.5

    def __post_init__(self) -> None:
        if self.crop < 8:  # the losses look at three scales
            raise TrainingError(f"crop is {self.crop}; allowed: 8 and more pixels")
        for name in ("degraded", "decoded", "ground"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; allowed: 0 to 1")


SCHEDULES = ("flow", "scaled_linear")


@dataclass(frozen=True, slots=True)
class UNetRecipe:
    """Denoising of frozen latents with frozen text features, in the straight path's times (logit-normal: arXiv 2403.03206).

    head                  None: the network reads the contrastive encoder's tokens as they are, as Stable Diffusion reads CLIP's
    schedule              "flow", or "scaled_linear", Stable Diffusion's table: how x is scaled and what the network is told of t
    time_mean, time_std   of logit(t), which is ln σ
    prediction, data_std  the Denoiser's. Latents deviate by about 0.37, so that a network that predicts the velocity ε - x0 spends
                          itself on repeating the noise (the first runs did, and hardly learned the words); v of the data
                          over their deviation leaves that to arithmetic
    cosine                weight of the direction of what the network says, in the loss
    drop_text             share of rows that see the empty text
    match_style           share of presentations whose caption names the drawing's style when such a caption exists
    variants              latents kept of each picture: itself, then copies mirrored, shifted and scaled a little
    captions_per_concept  texts encoded of each concept; main_boost: how much more often the main languages come
    clarity               captions count by the chance that the frozen contrastive encoder gives to their concept, cosines times
                          this number in a softmax; 0: all count alike
    text_block            text features are padded to so many rows or cut, and inference pads to a multiple of it
    scenes, scene_pool    share of composed scenes, out of so many first ones of the table of ``chashka data scenes``
    canvases              what is shown besides squares: (height, width, share of the steps), in pixels, multiples of 64
    canvas_pictures       single pictures and composed scenes that are kept for each of these shapes
    canvas_scenes
    groups                relative shares of the groups of concepts
    without               sources of pictures that are left to judges: neither single pictures nor scenes show them
    composed_only         concepts that are never shown alone, only in composed scenes (data/scenes.py decides which)
    picture_share         share of the presentations with a text that see the embedding of the picture itself in place of the pooled
                          text, and the empty text's tokens (needs the picture encoder); of these, picture_mix go some way
                          back to the caption's pooled text, so that pictures and words can be mixed. Composed scenes are among
                          them since their embeddings are kept; runs up to the seventeenth showed single pictures alone so
    words_share           share of the presentations with a text in which the tokens speak alone, the empty text's vector in place
                          of the pooled text, which does not tell the left of two things from the right (docs/models/experiments.md)
    related               share of the composed scenes that are of two things, who is where being said; the others are of every kind
    reading               weight of the lesson that a head with places learns from the scenes' layouts (places.py)
    reading_first         share of the run's steps at its beginning in which the head learns that lesson alone; they cost little,
                          and the U-Net then begins with places that read
    picture_copies        embeddings kept of each picture: itself, then copies mirrored, shifted and scaled a little
    mask_share            share of presentations with a random mask (masks.py), for a network of 2·C + 1 input channels; the
                          others have a mask of ones, which is what a text alone means to such a network
    shift, draw_*         how the model is meant to draw: in sample grids, and the defaults of what is exported
    fast_*                the same for drafts (chashka draw --fast)
    guide_without         blocks that the guiding half of a guided call lacks (UNetConfig's ``dropped``) in what is exported;
                          training knows nothing of it
    """

    stage: str = "unet"
    run: Run = field(default_factory=lambda: Run(batch=64, minutes=180.0, optimiser=Optimiser(lr=8e-4)))
    network: UNetConfig = TEACUP_UNET
    head: TextHeadConfig | None = TEACUP_TEXT_HEAD
    schedule: str = "flow"
    time_mean: float = -0.4
    time_std: float = 1.3
    prediction: str = "v"
    data_std: float = 0.37
    cosine: float = 0.0
    drop_text: float = 0.10
    match_style: float = 0.35
    variants: int = 2
    captions_per_concept: int = 96
    main_boost: float = 12.0
    clarity: float = 20.0
    text_block: int = 16
    scenes: float = 0.0
    scene_pool: int = 20_000
    canvases: tuple[tuple[int, int, float], ...] = ()
    canvas_pictures: int = 3_000
    canvas_scenes: int = 1_500
    groups: tuple[tuple[str, float], ...] = (
        ("animals-nature", 1.0),
        ("food-drink", 1.0),
        ("travel-places", 1.0),
        ("objects", 1.0),
        ("activities", 0.6),
        ("smileys", 0.15),
        ("symbols", 0.05),
        ("people", 0.05),
        ("clipart", 0.2),
    )
    without: tuple[str, ...] = ()
    composed_only: tuple[str, ...] = ()
    picture_share: float = 0.0
    picture_mix: float = 0.4
    words_share: float = 0.0
    related: float = 0.0
    reading: float = 0.0
    reading_first: float = 0.0
    picture_copies: int = 4
    mask_share: float = 0.0
    compile: bool = False
    shift: float = 0.5
    draw_steps: int = 20
    draw_guidance: float = 3.0
    draw_sampler: str = "dpmpp_2m"
    fast_steps: int = 8
    fast_guidance: float = 3.0
    fast_sampler: str = "dpmpp_2m"
    guide_without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        channels = self.network.out_channels
        if self.schedule not in SCHEDULES:
            raise TrainingError(f"schedule is {self.schedule!r}; allowed: {', '.join(SCHEDULES)}")
        if self.head is None and (self.picture_share or self.words_share):
            raise TrainingError(
                "picture_share and words_share need a text head: a network that reads tokens alone has no other input"
            )
        if self.picture_share + self.words_share > 1:
            raise TrainingError(
                f"picture_share and words_share make {self.picture_share + self.words_share:g}; allowed: 1 at most"
            )
        if self.reading and (self.head is None or not self.head.places):
            raise TrainingError("reading needs a text head with places: set head.places")
        if self.reading_first and not self.reading:
            raise TrainingError(f"reading_first is {self.reading_first:g}, but nothing is read: set reading above 0")
        if self.network.in_channels not in (channels, 2 * channels + 1):
            raise TrainingError(
                f"network.in_channels is {self.network.in_channels}; allowed: {channels}, or {2 * channels + 1} with a mask"
            )
        for name in ("picture_share", "picture_mix", "words_share", "related", "reading_first", "mask_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; allowed: 0 to 1")
        for height, width, share in self.canvases:
            if height % 64 or width % 64 or min(height, width) < 64 or share <= 0:
                raise TrainingError(
                    f"canvases has ({height}, {width}, {share}); allowed: multiples of 64 pixels and a share above 0"
                )
        if sum(share for _, _, share in self.canvases) >= 1:
            raise TrainingError("the shares of canvases make 1 or more; leave some of the steps to squares")
        if self.picture_copies < 1:
            raise TrainingError(f"picture_copies is {self.picture_copies}; allowed: 1 and more")
        if self.mask_share and not self.masked:
            raise TrainingError(
                f"mask_share needs a network that takes masks: set network.in_channels to {2 * channels + 1}"
            )

    @property
    def masked(self) -> bool:
        """Whether the network takes a mask and what is kept."""
        return self.network.in_channels != self.network.out_channels

    @property
    def spacing(self) -> str | None:
        """How the levels of its drawings are spaced; None: the schedule's usual way."""
        return None


@dataclass(frozen=True, slots=True)
class DistilRecipe(UNetRecipe):
    """A change of a trained U-Net (frozen as 'unet') that draws in ``segments`` steps of one call each; see training/distil.py.

    paths                  batches of drawings that the teacher makes
    teacher_steps          of each of them, a multiple of ``segments``; teacher_sampler: how
    guidance, interval     of the teacher: its scale, and between which times t of the straight path (elsewhere 1)
    rank                   of the change
    """

    stage: str = "distil"
    run: Run = field(
        default_factory=lambda: Run(
            batch=64,
            minutes=60.0,
            int8_from=0.5,
            optimiser=Optimiser(lr=2e-3, weight_decay=0.0, warmup_steps=100, decay_share=0.6),
        )
    )
    drop_text: float = 0.02
    segments: int = 4
    paths: int = 128
    teacher_steps: int = 12
    teacher_sampler: str = "dpmpp_2m"
    guidance: float = 4.5
    interval: tuple[float, float] = (0.1, 1.0)
    rank: int = 32
    draw_steps: int = 4
    draw_guidance: float = 1.0
    draw_sampler: str = "euler"
    fast_steps: int = 4
    fast_guidance: float = 1.0
    fast_sampler: str = "euler"

    def __post_init__(self) -> None:
        UNetRecipe.__post_init__(self)
        if self.segments < 1 or self.teacher_steps % self.segments:
            raise TrainingError(
                f"teacher_steps is {self.teacher_steps}; allowed: multiples of segments, which is {self.segments}"
            )
        if self.paths < 2:
            raise TrainingError(f"paths is {self.paths}; allowed: 2 and more, the first is kept to measure with")
        if self.rank < 1:
            raise TrainingError(f"rank is {self.rank}; allowed: 1 and more")

    @property
    def spacing(self) -> str | None:
        """The teacher's and the student's: of a table's usual four levels the last does nothing."""
        return None if self.schedule == "flow" else "trailing"


REPORTING = ("twemoji", "emojione", "fxemoji", "streamline-emojis")
"""The sources of judge A, which reports; a generator's recipe names them in ``without``
(docs/decisions/004-judges-of-other-vendors.md)."""
COMPOSED_ONLY = ("emoji:1f333", "emoji:1f43b", "emoji:1f40c", "emoji:1f334", "emoji:1f916")
"""Tree, bear, snail, palm and robot: what ``data.scenes.only_composed`` says of the grammar's things."""
CHOOSING = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-3d")
"""The sources of judge B, which chooses and tunes."""


@dataclass(frozen=True, slots=True)
class JudgeRecipe:
    """A detector of the grammar's things in composed scenes of the drawings of ``sources``; all others test it.

    ``spoilt``: share of drawings that are made into blobs, halves, merged pairs or (``blurred`` of them) decoded from noisy
    latents, and are of no class. ``decoded``: each drawing comes a second time as the frozen autoencoder gives it back. Both
    are left out when the autoencoder is not given. ``opaque``: share of pictures laid on a plain colour.
    ``size``, ``cover``, ``way``: weights of the losses of boxes, of covered places and of the way to the centre. ``restyled``:
    share of drawings that are shown as another hand might have drawn them (training/judge_styles.py). ``named``: weight of
    naming ``named_batch`` single drawings a step, of all the sources' concepts: what drawings of one thing have in common
    between vendors is learned from all of them.
    """

    stage: str = "judge"
    run: Run = field(
        default_factory=lambda: Run(
            batch=32,
            minutes=90.0,
            look_minutes=10.0,
            optimiser=Optimiser(kind="muon", lr=3e-3, warmup_steps=50, decay_share=0.5),
        )
    )
    network: JudgeConfig = JUDGE
    sources: tuple[str, ...] = REPORTING
    spoilt: float = 0.12
    blurred: int = 96
    decoded: bool = True
    opaque: float = 0.3
    size: float = 4.0
    cover: float = 0.5
    way: float = 1.0
    restyled: float = 0.85
    named: float = 0.5
    named_batch: int = 32


Recipe = (
    AutoencoderRecipe
    | ContrastiveRecipe
    | T5Recipe
    | PictureRecipe
    | UpscaleRecipe
    | UNetRecipe
    | DistilRecipe
    | JudgeRecipe
)
