"""Imports go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# In order of dependence: a room imports only itself and what stands before it.
ROOMS = [
    "_face",
    "_once",
    "_typing",
    "compile_cache",
    "_values",
    "random_keys",
    "config",
    "schedules",
    "parameterizations",
    "precision",
    "nn",
    "denoiser",
    "exact",
    "guidance",
    "samplers",
    "losses",
    "recipes",
    "editing",
    "data",
    "models",
    "training",
    "distillation",
    "evaluation",
    "testing",
    "cli",
]
# A room of several files has one face, its `__init__`.
FACES = {path.parent.name for path in (ROOT / "diffusion_eqx").glob("*/__init__.py")}


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
    room = parts[0]
    allowed = ROOMS[: ROOMS.index(room) + 1]
    for module in imported(path):
        assert not module.startswith("diffusion_eqx_export"), f"{path} imports {module}"
        if module.startswith("diffusion_eqx."):
            other, *inside = module.split(".")[1:]
            assert other in allowed, f"{path} imports {module}"
            assert other == room or not inside, f"{path} imports {module}, not the face of {other}"


OUTSIDE = [
    *(ROOT / "export").rglob("*.py"),
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "benchmarks").rglob("*.py"),
    *(ROOT / "tests").glob("*.py"),
]


@pytest.mark.parametrize("path", sorted(OUTSIDE), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_others_import_faces_only(path):
    for module in imported(path):
        if module.startswith("diffusion_eqx."):
            room, *inside = module.split(".")[1:]
            assert room in ROOMS, f"{path} imports {module}"
            assert not inside, f"{path} imports {module}, not the face of {room}"
            assert not room.startswith("_"), f"{path} imports {module}"


def test_every_room_is_in_the_list():
    names = {p.stem for p in (ROOT / "diffusion_eqx").glob("*.py")} | FACES
    assert names - {"__init__"} == set(ROOMS)


def test_configuration_imports_no_jax():
    for path in (ROOT / "diffusion_eqx" / "config").glob("*.py"):
        assert not any(module.split(".")[0] in {"jax", "equinox"} for module in imported(path))


def test_no_package_is_called_export():
    assert not (ROOT / "export" / "__init__.py").exists()
