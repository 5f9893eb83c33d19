"""Configuration of noise schedules."""

import math
import warnings
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from diffusion_eqx.config.base import STRICT

ScheduleType = Literal["linear", "scaled_linear", "cosine", "sigmoid", "vp", "ve", "edm", "flow"]
Beta = Annotated[float, Field(gt=0.0)]

# Schedules that are given by betas.
_DISCRETE = ("linear", "scaled_linear", "cosine", "sigmoid")

# The betas of Ho et al. (2020), and the number of timesteps for which they were chosen.
_BETA_START, _BETA_END, _TIMESTEPS = 1e-4, 2e-2, 1000

# Sampling starts at pure noise. Where more than this share of the signal is left at t = 1, training never
# showed the network such a start, and samples are biased. Stable Diffusion leaves 0.07.
_MOST_SIGNAL_AT_END = 0.1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseScheduleConfig:
    """How noise grows over the timesteps.

    **Warns:** `UserWarning` if the betas leave more than a tenth of the signal at t = 1, where sampling
    starts from pure noise: samples would be biased.
    """

    name: str = "schedule"
    """A name for people."""
    schedule_type: ScheduleType = "linear"
    """The kind of schedule. By betas: `linear` (beta linear; Ho et al. 2020), `scaled_linear` (sqrt(beta)
    linear; Rombach et al. 2022), `cosine` (alpha_bar a squared cosine; Nichol & Dhariwal 2021) or `sigmoid`
    (beta logistic; Xu et al. 2022). In continuous time: `vp` and `ve` (the SDEs of Song et al. 2021), `edm`
    (Karras et al. 2022) or `flow` (the straight path of rectified flow)."""
    num_timesteps: Annotated[int, Field(ge=1)] = 1000
    """T, the number of noise levels that are trained."""
    beta_start: Beta | None = None
    """The first beta, of `linear`, `scaled_linear` and `sigmoid`; and of `vp`, whose beta(t) runs from
    T·beta_start to T·beta_end. None: 1e-4 for a thousand timesteps; for another T it is scaled, so that
    the same noise is reached: see `betas`."""
    beta_end: Beta | None = None
    """The last beta, of the schedules that have `beta_start`. None: 0.02 for a thousand timesteps; for
    another T it is scaled, so that the same noise is reached: see `betas`."""
    sigma_min: Annotated[float, Field(gt=0.0)] = 0.002
    """The least standard deviation of the noise, of `ve` and `edm`."""
    sigma_max: Annotated[float, Field(gt=0.0)] = 80.0
    """The greatest standard deviation of the noise, of `ve` and `edm`."""
    rescale_zero_terminal_snr: bool = False
    """Change the betas so that nothing of the signal is left at the end (Lin et al. 2024)."""

    @model_validator(mode="after")
    def _numbers_agree(self) -> "NoiseScheduleConfig":
        first, last = self.betas
        if first > last:
            raise ValueError(
                f"beta_start must not exceed beta_end; got beta_start={first:g} and beta_end={last:g}"
            )
        if last >= 1.0 and self.schedule_type != "vp":
            raise ValueError(
                f"beta_start and beta_end are shares of a variance and must be less than 1; got "
                f"beta_start={first:g} and beta_end={last:g}"
            )
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min must be less than sigma_max; got sigma_min={self.sigma_min} and "
                f"sigma_max={self.sigma_max}"
            )
        if self.rescale_zero_terminal_snr and self.schedule_type not in _DISCRETE:
            raise ValueError(
                f"rescale_zero_terminal_snr changes betas, which schedule_type={self.schedule_type!r} does "
                f"not have; choose one of {', '.join(_DISCRETE)}"
            )
        if self.signal_at_end > _MOST_SIGNAL_AT_END:
            warnings.warn(
                f"this noise schedule leaves {self.signal_at_end:.2f} of the signal at t = 1 "
                f"(num_timesteps={self.num_timesteps}, betas from {first:g} to {last:g}), where sampling "
                "starts from pure noise: samples will be biased. Leave out beta_start and beta_end, which "
                "scales them with num_timesteps, raise beta_end, or choose schedule_type='cosine'",
                stacklevel=2,
            )
        return self

    @property
    def betas(self) -> tuple[float, float]:
        """The first and the last beta: as given, or else 1e-4 and 0.02 scaled to `num_timesteps` = T.

        A default beta b becomes 1 − (1 − b)^(1000/T), so that the timesteps together leave as much of the
        signal as a thousand do. For `vp` it becomes b·1000/T: its beta(t) runs from 0.1 to 20 for every T.
        """
        given = (self.beta_start, self.beta_end)
        first, last = (
            self._scaled(default) if beta is None else beta
            for beta, default in zip(given, (_BETA_START, _BETA_END), strict=True)
        )
        return first, last

    def _scaled(self, beta: float) -> float:
        if self.num_timesteps == _TIMESTEPS:
            return beta
        ratio = _TIMESTEPS / self.num_timesteps
        if self.schedule_type == "vp":
            return beta * ratio
        return -math.expm1(ratio * math.log1p(-beta))

    @property
    def signal_vanishes(self) -> bool:
        """Whether nothing of the signal is left at t = 1."""
        return self.schedule_type == "flow" or self.rescale_zero_terminal_snr

    @property
    def signal_at_end(self) -> float:
        """alpha(1), as `betas` decide it; 0 for schedules that do not depend on them."""
        total, (first, last) = self.num_timesteps, self.betas
        if self.signal_vanishes:
            return 0.0
        match self.schedule_type:
            case "vp":
                return math.exp(-total * (first + last) / 4)
            case "linear":
                betas = _line(first, last, total)
            case "scaled_linear":
                betas = [root**2 for root in _line(first**0.5, last**0.5, total)]
            case "sigmoid":
                rising = [1 / (1 + math.exp(-x)) for x in _line(-6.0, 6.0, total)]
                betas = [first + (last - first) * share for share in rising]
            case _:
                return 0.0
        return math.exp(sum(math.log1p(-beta) for beta in betas) / 2)


def _line(first: float, last: float, count: int) -> list[float]:
    """`count` numbers of equal spacing; the first alone if there is one."""
    return [first + (last - first) * index / max(count - 1, 1) for index in range(count)]
