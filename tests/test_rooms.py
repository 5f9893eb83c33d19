"""Imports go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# In order of dependence: a room imports only itself and what stands before it.
ROOMS = [
    "_typing",
    "random_keys",
    "config",
    "schedules",
    "parameterization",
    "nn",
    "denoiser",
    "guidance",
    "samplers",
    "editing",
    "losses",
    "variational",
    "data",
    "models",
    "evaluation",
    "training",
    "distillation",
    "cli",
]


def imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize(
    "path", sorted((ROOT / "diffusion_eqx").rglob("*.py")), ids=lambda p: p.stem
)
def test_imports_go_one_way(path):
    parts = path.relative_to(ROOT / "diffusion_eqx").with_suffix("").parts
    if parts == ("__init__",):
        return
    allowed = ROOMS[: ROOMS.index(parts[0]) + 1]
    for module in imported(path):
        assert not module.startswith("diffusion_eqx_export"), f"{path} imports {module}"
        if module.startswith("diffusion_eqx."):
            assert module.split(".")[1] in allowed, f"{path} imports {module}"


def test_configuration_imports_no_jax():
    for path in (ROOT / "diffusion_eqx" / "config").glob("*.py"):
        assert not any(module.split(".")[0] in {"jax", "equinox"} for module in imported(path))


def test_no_package_is_called_export():
    assert not (ROOT / "export" / "__init__.py").exists()
