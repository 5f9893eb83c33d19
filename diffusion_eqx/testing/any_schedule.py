"""Several schedules in one program."""

from typing import Any

import jax
from jaxtyping import Array, Float, Int

from diffusion_eqx.schedules import AbstractSchedule


class AnySchedule(AbstractSchedule):
    """One of several schedules, chosen at run time: a `vmap` over `which` tries them all in one program.

    - `schedules`: of the same `num_timesteps`, which is to be given too.
    - `which`: the index of the one that is meant.

    Under `vmap` every schedule is computed and one is kept; then derivatives must be taken forwards.
    """

    schedules: tuple[AbstractSchedule, ...]
    which: Int[Array, ""]

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """That of the chosen one."""
        return self._chosen("alpha", t)

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """That of the chosen one."""
        return self._chosen("sigma", t)

    def log_snr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """That of the chosen one."""
        return self._chosen("log_snr", t)

    def time_of_log_snr(self, log_snr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """That of the chosen one."""
        return self._chosen("time_of_log_snr", log_snr)

    def pair_of_log_snr(
        self, log_snr: Float[Array, "*s"], time: Float[Array, "*s"]
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
        """That of the chosen one."""
        return self._chosen("pair_of_log_snr", log_snr, time)

    def _chosen(self, name: str, *arguments: Any) -> Any:
        branches = [getattr(schedule, name) for schedule in self.schedules]
        return jax.lax.switch(self.which, branches, *arguments)
