"""The surface: names are found on faces, each by one path; the top level is lazy; importing it is cheap."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffusion_eqx as dx

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "diffusion_eqx"

# Rooms that are folders: whoever is outside imports from their face.
ROOMS = sorted(p.name for p in LIBRARY.iterdir() if (p / "__init__.py").exists())
SOURCES = sorted(
    path
    for folder in ("diffusion_eqx", "export", "examples", "benchmarks", "tests", "docs")
    for path in (ROOT / folder).rglob("*.py")
)
HEAVY = {
    "matplotlib",
    "sklearn",
    "PIL",
    "orbax",
    "grain",
    "tensorflow",
    "datasets",
    "torch",
    "fontTools",
    "rich",
    "tensorboardX",
    "wandb",
}


def imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of each import from the library in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [
        (m, n) for m, n in found if m.split(".")[0] in ("diffusion_eqx", "diffusion_eqx_export")
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_are_from_faces(path):
    inside = path.relative_to(LIBRARY).parts[0] if path.is_relative_to(LIBRARY) else None
    for module, _ in imports(path):
        library, *parts = module.split(".")
        if library == "diffusion_eqx_export":
            own = path.is_relative_to(ROOT / "export")
            assert own or not parts, f"{path} imports {module}: take it from the face"
            continue
        if not parts:
            continue
        room = parts[0]
        if room.startswith("_"):
            assert inside, f"{path} imports {module}, which is private"
        if room in ROOMS and room != inside:
            assert len(parts) == 1, f"{path} imports {module}: take it from diffusion_eqx.{room}"


def test_every_public_name_is_on_one_face():
    """A class or function has one import path, that of the room in which it is written."""
    homes: dict[str, set[str]] = {}
    # What several rooms show on purpose: a number is declared in samplers and guidance alike.
    shared = {"Number", "number", "numbers", "with_numbers"}
    for room in ROOMS:
        face = importlib.import_module(f"diffusion_eqx.{room}")
        for name, value in vars(face).items():
            public = not name.startswith("_") and name not in shared
            if public and (inspect.isclass(value) or inspect.isfunction(value)):
                homes.setdefault(name, set()).add(room)
                assert value.__module__.startswith(f"diffusion_eqx.{room}"), (room, name)
    assert {name: rooms for name, rooms in homes.items() if len(rooms) > 1} == {}
    assert len(homes) > 200


@pytest.mark.parametrize("room", [name for name in dir(dx) if inspect.ismodule(getattr(dx, name))])
def test_the_tab_key_shows_what_is_public_and_nothing_else(room):
    face = importlib.import_module(f"diffusion_eqx.{room}")
    shown = {name: getattr(face, name) for name in dir(face)}
    for name, value in shown.items():
        assert not name.startswith("_")
        assert not inspect.ismodule(value), f"{room} shows the module {name}"
        home = getattr(value, "__module__", "diffusion_eqx")
        assert home.startswith("diffusion_eqx") or home in ("typing", "types"), (
            f"{room}.{name}: {home}"
        )
    public = {
        name for name, value in vars(face).items() if inspect.isclass(value) and name in shown
    }
    assert public or room in ("compile_cache", "precision", "recipes")


def test_the_top_level_gives_the_rooms_and_the_names_of_every_session():
    expected = {
        "Denoiser",
        "Guided",
        "cast",
        "load_model",
        "read_record",
        "sample",
        "save_model",
        "save_picture",
        "train",
        "use_all_cores",
    }
    assert expected <= set(dir(dx))
    for name in dir(dx):
        assert getattr(dx, name) is not None
    assert dx.samplers.DDIMSampler.__module__ == "diffusion_eqx.samplers.ddim"
    with pytest.raises(AttributeError, match="diffusion_eqx has no 'sampler'; it has"):
        _ = dx.sampler


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


def test_importing_it_pulls_in_nothing_heavy():
    code = "import sys, diffusion_eqx; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(run(code).split())
    assert not loaded & (HEAVY | {"jax", "equinox", "diffrax", "optax"})


@pytest.mark.parametrize("room", [r for r in ROOMS if r != "cli"])
def test_a_room_pulls_in_nothing_heavy_before_it_is_used(room):
    code = f"import sys, diffusion_eqx.{room}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    assert not set(run(code).split()) & HEAVY


def test_every_public_part_has_a_docstring_that_says_something():
    for room in ROOMS:
        face = importlib.import_module(f"diffusion_eqx.{room}")
        for name, value in vars(face).items():
            if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            text = inspect.getdoc(value) or ""
            assert len(text) > 10, f"{room}.{name}"
            for poor in (r"See the (base )?class", r"\bthe guide\b"):
                assert not re.search(poor, text), f"{room}.{name}: {poor}"


def test_no_sentence_sends_the_reader_elsewhere():
    for path in SOURCES:
        if path == Path(__file__):
            continue
        text = path.read_text()
        for poor in ("See the class.", "See the base class.", "The guide's", "the guide's"):
            assert poor not in text, f"{path} says {poor!r}"
