"""What the recipes of all stages share: the optimiser with its schedule, and a run's length and habits."""

from __future__ import annotations

from dataclasses import dataclass, field

from chashka.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Optimiser:
    """``kind``, adamw or muon (optimisers.py), and its schedule.

    The learning rate is a function of the run's share s in [0, 1] alone.

    ``warmup_steps`` rise linearly from 0; then constant; then over the last ``decay_share`` linearly to 0.
    ``ema_rel`` is EDM2's sigma_rel (arXiv 2312.02696, eq. 123-126): the width of the power-function average relative to
    the run so far. ``clip`` bounds the gradient's global norm.
    """

    lr: float = 6e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 200
    decay_share: float = 0.25
    clip: float = 1.0
    ema_rel: float = 0.10
    kind: str = "adamw"


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage shares: seed, batch, length and how often to log, save and look.

    ``steps`` is the length of the whole run; 0 means that the length is ``minutes`` of training time, over all slices.
    With ``steps`` a CPU run is deterministic and resumes with an identical loss curve. ``int8_from`` is the share of the run
    after which the network learns with its weights rounded as int8 stores them (rounding.py); 1: never.
    """

    seed: int = 0
    batch: int = 128
    steps: int = 0
    minutes: float = 60.0
    log_every: int = 20
    save_minutes: float = 2.0
    look_minutes: float = 5.0
    int8_from: float = 1.0
    optimiser: Optimiser = field(default_factory=Optimiser)

    def __post_init__(self) -> None:
        if not 0 <= self.int8_from <= 1:
            raise TrainingError(f"run.int8_from is {self.int8_from}; allowed: 0 to 1, a share of the run")
