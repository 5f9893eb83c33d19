"""What a broken law says."""

from typing import Any, NoReturn

from diffusion_eqx._values import check_kind


class LawBroken(AssertionError):
    """A part does not keep a law that every part of its kind must keep.

    - `law`: the law, in a few words that name it.
    - `found`: the number, or what else was found.
    - `owed`: what the law asks for.
    """

    def __init__(self, law: str, found: Any, owed: str, remedy: str = ""):
        self.law = law
        self.found = found
        self.owed = owed
        shown = f"{found:.4g}" if isinstance(found, float) else str(found)
        super().__init__(
            f"law broken: {law}. Found {shown}; owed {owed}" + (f". {remedy}" if remedy else "")
        )


def demand(law: str, holds: Any, found: Any, owed: str, remedy: str = "") -> None:
    """**Raises:** `LawBroken` unless the law holds."""
    if not bool(holds):
        raise LawBroken(law, found, owed, remedy)


def broken_by(law: str, error: Exception, owed: str, remedy: str = "") -> NoReturn:
    """**Raises:** `LawBroken`, always: an error came where the law promises that none does."""
    raise LawBroken(law, f"{type(error).__name__}: {error}", owed, remedy) from error


def demand_instance(given: Any, kind: type) -> None:
    """**Raises:** `TypeError` if a part is not of its kind, such as a class in place of its instance."""
    check_kind(given, kind, f"the laws of {kind.__name__} are for its instances")
