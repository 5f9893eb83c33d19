"""What guidance is: a value that bends a denoiser's prediction, and which may stand around which."""

from abc import abstractmethod
from typing import Any, ClassVar

from diffusion_eqx._typing import Batch, Cond
from diffusion_eqx._values import AbstractValue
from diffusion_eqx.denoiser import AbstractDenoiser, Level, Prediction, as_level
from diffusion_eqx.schedules import AbstractSchedule, NoiseLevel


class AbstractGuidance(AbstractValue):
    """`guidance(denoiser, x, level, cond) -> Prediction`; a guidance of your own defines just this.

    - `takes`: the names in `cond` that are its own, such as a measurement. The network never sees them.
    - `keeps_pair`: whether x = alpha·x0 + sigma·eps still holds after it, if it did before.

    """

    takes: ClassVar[tuple[str, ...]] = ()
    keeps_pair: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self, denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, cond: Cond
    ) -> Prediction:
        """The guided prediction of a denoiser for noisy examples `x` at a level, of shape () or
        (batch,).
        """

    def check(self, denoiser: AbstractDenoiser) -> None:
        """**Raises:** `ValueError` if it cannot guide this denoiser.

        `Guided` asks once, when it is made.
        """


class AbstractTwoBranchGuidance(AbstractGuidance):
    """Guidance by the difference of two predictions. A denoiser can carry only one of this kind."""


class AbstractLimiter(AbstractGuidance):
    """Keeps predicted clean examples within bounds. It comes last, around all other guidance."""


class Guided(AbstractDenoiser):
    """A denoiser whose predictions a guidance bends; itself a denoiser.

    - `guidance`: one, or a tuple of several, the innermost first.

    **Raises:** `ValueError` if they stand in an order that makes no sense: guidance around a
    limiter, a limiter around a limiter, or guidance by two branches twice.
    """

    denoiser: AbstractDenoiser
    guidance: AbstractGuidance

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        guidance: AbstractGuidance | tuple[AbstractGuidance, ...],
    ):
        several = guidance if isinstance(guidance, tuple) else (guidance,)
        if not several:
            raise ValueError("an empty tuple is no guidance; use the denoiser itself")
        *inner, outermost = several
        for one in inner:
            denoiser = Guided(denoiser, one)
        self.denoiser = denoiser
        self.guidance = outermost

    def __check_init__(self):
        _check_order(self.guidance, guidance_of(self.denoiser))
        self.guidance.check(self.denoiser)

    @property
    def schedule(self) -> AbstractSchedule:
        """That of the denoiser within."""
        return self.denoiser.schedule

    @property
    def null(self) -> Cond:
        """That of the denoiser within."""
        return self.denoiser.null

    def __call__(self, x: Batch, level: Level, cond: Cond = None) -> Prediction:
        """The guided prediction."""
        return self.guidance(self.denoiser, x, as_level(self.schedule, level), cond)


def guidance_of(denoiser: AbstractDenoiser) -> list[AbstractGuidance]:
    """The guidance that a denoiser carries, the outermost first."""
    found = []
    while isinstance(denoiser, Guided):
        found.append(denoiser.guidance)
        denoiser = denoiser.denoiser
    return found


def names_taken(denoiser: AbstractDenoiser) -> tuple[str, ...]:
    """The names in `cond` that the guidance of a denoiser takes for itself."""
    return tuple(name for guidance in guidance_of(denoiser) for name in guidance.takes)


def keeps_pair(denoiser: AbstractDenoiser) -> bool:
    """Whether x = alpha·x0 + sigma·eps holds for what a denoiser predicts.

    Only CFG++ breaks it, on purpose.
    """
    return all(guidance.keeps_pair for guidance in guidance_of(denoiser))


def take(cond: Cond, names: tuple[str, ...]) -> tuple[dict[str, Any], Cond]:
    """What a condition holds under the given names, and the rest of it.

    **Raises:** `ValueError` if a name is missing.
    """
    if not names:
        return {}, cond
    given = cond if isinstance(cond, dict) else {}
    missing = [name for name in names if name not in given]
    if missing:
        holds = ", ".join(given) or ("a bare condition" if cond is not None else "nothing")
        raise ValueError(
            f"the guidance needs cond[{missing[0]!r}], but cond holds {holds}; give a dict "
            "with that name, and "
            'labels under "label"'
        )
    rest = {name: value for name, value in given.items() if name not in names}
    return {name: given[name] for name in names}, rest or None


def limited(
    denoiser: AbstractDenoiser, x: Batch, level: NoiseLevel, predicted: Prediction, x0: Batch
) -> Prediction:
    """A prediction with another x0, whose eps follows unless the denoiser sets the two apart."""
    if keeps_pair(denoiser):
        return predicted.with_x0(x, level, x0)
    return Prediction(x0, predicted.eps, predicted.variance_fraction)


def _check_order(outer: AbstractGuidance, inside: list[AbstractGuidance]) -> None:
    name = type(outer).__name__
    for inner in inside:
        if isinstance(inner, AbstractLimiter):
            if isinstance(outer, AbstractLimiter):
                raise ValueError(
                    f"{name} around {type(inner).__name__} limits what is limited already; use one of them"
                )
            raise ValueError(
                f"{name} must stand inside of {type(inner).__name__}, not around it: guidance "
                "is what drives "
                "predictions out of range; put the limiter last"
            )
        if isinstance(outer, AbstractTwoBranchGuidance) and isinstance(
            inner, AbstractTwoBranchGuidance
        ):
            raise ValueError(
                f"{name} around {type(inner).__name__} would guide twice by the same condition; use one of "
                "them, with the scale that you want"
            )
    taken = [name for guidance in inside for name in guidance.takes]
    twice = sorted(set(outer.takes) & set(taken))
    if twice:
        raise ValueError(
            f"two guidances take cond[{twice[0]!r}], so that it is not clear whose it is; use one of them"
        )
