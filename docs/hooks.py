"""What MkDocs runs while it builds: it adds the pages that are not written by hand.

These are the artifact's format, and one page of reference for each room. Such a page is made from the
room's face: the names that its `__init__`, or its single file, holds for users. So no such name can be
missing, and nothing else is shown.
"""

from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = {"diffusion_eqx": ROOT, "diffusion_eqx_export": ROOT / "export"}
# In order of dependence; a room that is not named here comes last.
ORDER = [
    "config",
    "schedules",
    "parameterizations",
    "nn",
    "denoiser",
    "exact",
    "guidance",
    "samplers",
]
ORDER += [
    "losses",
    "editing",
    "data",
    "models",
    "training",
    "distillation",
    "evaluation",
    "testing",
]

# Where a class shows what it inherits too: fields of configurations stand in bases that are on no face.
CONFIGURATIONS = "diffusion_eqx.config"


def names_on(room: griffe.Module) -> list[str]:
    """The names that users import from a room: what its `__init__` brings, or what its file defines.

    An `__init__` brings names from files of its room, and from private files of the package.
    """
    if room.exports is not None:
        names = [str(name) for name in room.exports]
    else:
        names = [
            member.name
            for member in room.members.values()
            if not member.name.startswith("_")
            and (
                member.target_path.startswith((room.path + ".", f"{room.package.path}._"))
                if member.is_alias
                else not member.is_module
            )
        ]
    return sorted(names, key=str.lower)


def rooms_of(package: griffe.Module) -> list[griffe.Module]:
    """The rooms of the library, or the exporter, which is a single one."""
    if package.name == "diffusion_eqx_export":
        return [package]
    modules = (member for member in package.members.values() if not member.is_alias)
    rooms = [module for module in modules if module.is_module and not module.name.startswith("_")]
    return sorted(
        rooms, key=lambda m: (ORDER.index(m.name) if m.name in ORDER else len(ORDER), m.name)
    )


def pages() -> dict[str, str]:
    """The pages of reference, in Markdown, by their path in the site."""
    loader = griffe.GriffeLoader(search_paths=list(PACKAGES.values()))
    made = {}
    for package in PACKAGES:
        for room in rooms_of(loader.load(package)):
            if names := names_on(room):
                made[f"reference/{room.path.removeprefix('diffusion_eqx.')}.md"] = page(
                    room.path, names
                )
    return made


def page(room: str, names: list[str]) -> str:
    """The page of one room: what the room is for, then each name on its face."""
    parts = [f"# {room.removeprefix('diffusion_eqx.')}", f"`{room}`"]
    parts.append(f"::: {room}\n    options:\n      members: false")
    shown = "\n    options:\n      show_root_heading: true\n      show_root_toc_entry: true"
    if room == CONFIGURATIONS:
        shown += "\n      inherited_members: true"
    parts += [f"::: {room}.{name}{shown}" for name in names]
    return "\n\n".join(parts) + "\n"


_pages: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of reference at the end of the navigation."""
    _pages.update(pages())
    assert config.nav is not None
    config.nav.append({"Reference": [*_pages]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of reference, and the format, to those that are written by hand."""
    made = {**_pages, "format.md": (ROOT / "export" / "FORMAT.md").read_text()}
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files
