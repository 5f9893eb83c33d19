"""Packages that only some people want."""

import importlib.util


def need(module: str, *, extra: str) -> None:
    """Refuse to go on without a package.

    **Raises:** `ModuleNotFoundError` that says how to install it.
    """
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(
            f"{module} is not installed; it comes with `pip install 'diffusion-eqx[{extra}]'`"
        )
