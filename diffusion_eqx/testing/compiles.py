"""That numbers cost no compiles: how many programs JAX compiles while some lines run."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from diffusion_eqx._values import AbstractValue, numbers, with_numbers
from diffusion_eqx.testing.law import broken_by

# What JAX calls the time that its compiler takes for one program.
_EVENT = "/jax/core/compile/backend_compile_duration"


class Compiles:
    """A counter: `count` is how many programs have been compiled since it began."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """JAX reports an event."""
        self.count += event == _EVENT


@contextmanager
def count_compiles() -> Iterator[Compiles]:
    """`with count_compiles() as compiles: …` and then `compiles.count`."""
    compiles = Compiles()
    jax.monitoring.register_event_duration_secs_listener(compiles)
    try:
        yield compiles
    finally:
        jax.monitoring.unregister_event_duration_listener(compiles)


def demand_inputs(part: AbstractValue) -> None:
    """Demand that each declared number of a part can be an input of a program.

    **Raises:** `LawBroken` for a number that is static, which costs a compile for each of its values.
    """
    for name, number in numbers(part).items():
        try:
            with_numbers(part, {name: number.default})
        except TypeError as error:
            broken_by(f"no number costs a new compile: {name} may be an input", error, "no error")
