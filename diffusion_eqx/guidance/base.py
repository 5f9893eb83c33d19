"""What guidance is: a denoiser around a denoiser, and which may stand around which."""

from typing import TYPE_CHECKING, ClassVar

import equinox as eqx

from diffusion_eqx.denoiser import AbstractDenoiser
from diffusion_eqx.schedules import AbstractSchedule


class AbstractWrapper(AbstractDenoiser):
    """A denoiser that changes another one's prediction.

    `keeps_pair`: whether x_t = alpha·x0 + sigma·eps still holds after the change, if it did before.
    """

    # A type checker takes an AbstractVar for an argument of __init__, a ClassVar not.
    if TYPE_CHECKING:
        denoiser: ClassVar[AbstractDenoiser]
    else:
        denoiser: eqx.AbstractVar[AbstractDenoiser]
    keeps_pair: eqx.AbstractClassVar[bool]

    @property
    def exact_pair(self) -> bool:
        """Whether this wrapper and all within it keep the pair."""
        return self.keeps_pair and self.denoiser.exact_pair

    @property
    def schedule(self) -> AbstractSchedule:
        """That of the wrapped denoiser."""
        return self.denoiser.schedule


class AbstractGuidance(AbstractWrapper):
    """Guidance: moves the prediction. It must see predictions that no limiter has touched.

    **Raises:** `ValueError` if a limiter stands inside.
    """

    def __check_init__(self):
        if any(isinstance(inner, AbstractLimiter) for inner in inside(self)):
            raise ValueError(
                f"{type(self).__name__} must stand inside of clipping and thresholding, not around them: "
                "guidance is what drives predictions out of range; wrap the limiter around it"
            )


class AbstractTwoBranchGuidance(AbstractGuidance):
    """Guidance by the difference of two predictions, of which one denoiser can have only one kind.

    **Raises:** `ValueError` if another one stands inside.
    """

    def __check_init__(self):
        for inner in inside(self):
            if isinstance(inner, AbstractTwoBranchGuidance):
                raise ValueError(
                    f"{type(self).__name__} around {type(inner).__name__} would guide twice by the same "
                    "condition; use one of them, with the scale that you want"
                )


class AbstractLimiter(AbstractWrapper):
    """Keeps predicted clean examples within bounds: the outermost wrapper.

    **Raises:** `ValueError` if another limiter stands inside.
    """

    keeps_pair: ClassVar[bool] = True

    def __check_init__(self):
        for inner in inside(self):
            if isinstance(inner, AbstractLimiter):
                raise ValueError(
                    f"{type(self).__name__} around {type(inner).__name__} limits what is limited already; "
                    "use one of them"
                )


def inside(wrapper: AbstractWrapper) -> list[AbstractDenoiser]:
    """The denoisers that a wrapper contains, the outermost first."""
    found = [wrapper.denoiser]
    while isinstance(found[-1], AbstractWrapper):
        found.append(found[-1].denoiser)
    return found
