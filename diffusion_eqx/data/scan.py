"""The pictures of a folder and their classes, by name alone; no file is opened here."""

import dataclasses
import os
from pathlib import Path

# Endings of pictures. A file with one of them that is no picture is a fault, not an oversight.
_ENDINGS = (
    ".apng .avif .bmp .dib .gif .heic .heif .ico .j2k .jfif .jp2 .jpe .jpeg .jpg .jxl .mpo .pbm .pgm .png "
    ".pnm .ppm .qoi .sgi .tif .tiff .webp"
)
PICTURE_ENDINGS = frozenset(_ENDINGS.split())
# What operating systems leave in folders; names that begin with a dot are hidden anyway.
_SYSTEM = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})


@dataclasses.dataclass
class Scan:
    """What a folder holds.

    `files`: paths that may be pictures, sorted by the bytes of their names. `classes`: the number of the
    class of each, where `class_names` is not empty. `hidden`: how many hidden or system entries were left
    out. `broken`: what cannot be a picture, with the reason.
    """

    files: list[Path] = dataclasses.field(default_factory=list)
    classes: list[int] = dataclasses.field(default_factory=list)
    class_names: tuple[str, ...] = ()
    hidden: int = 0
    broken: list[tuple[Path, str]] = dataclasses.field(default_factory=list)


def scan_folder(root: Path, *, labelled: bool | None) -> Scan:
    """The files below `root`. Each folder directly in `root` is a class, if the files are labelled.

    `labelled`: None labels them if there are folders.

    **Raises:** `FileNotFoundError` or `NotADirectoryError` if `root` is no folder; `ValueError` if there
    are pictures beside class folders, or no class folders although `labelled`.
    """
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is a file; give the folder that holds the pictures")
    scan = Scan()
    folders, files = _entries(root, scan)
    if labelled is None:
        labelled = bool(folders)
    if not labelled:
        scan.files += files
        for folder in folders:
            scan.files += _below(folder, scan, {os.path.realpath(root)})
        scan.files.sort(key=os.fsencode)
        return scan
    beside = [file for file in files if is_picture_name(file)]
    if beside and folders:
        raise ValueError(
            f"{root} holds {len(beside)} pictures (such as {beside[0].name}) beside class folders (such as "
            f"{folders[0].name}); move each picture into a class folder, or give labelled=False"
        )
    if not folders:
        raise ValueError(f"{root} holds no class folders; give labelled=False for pictures alone")
    scan.hidden += len(files)
    for number, folder in enumerate(folders):
        inside = _below(folder, scan, {os.path.realpath(root)})
        scan.files += inside
        scan.classes += [number] * len(inside)
    # A name that is not UTF-8 could not be written into a model's file.
    scan.class_names = tuple(os.fsencode(f.name).decode(errors="replace") for f in folders)
    return scan


def is_picture_name(path: Path) -> bool:
    """Whether the ending is that of a picture."""
    return path.suffix.lower() in PICTURE_ENDINGS


def _below(folder: Path, scan: Scan, above: set[str]) -> list[Path]:
    """All files below a folder, sorted by the bytes of their paths."""
    place = os.path.realpath(folder)
    if place in above:
        scan.broken.append((folder, "a link to a folder that holds it"))
        return []
    folders, files = _entries(folder, scan)
    for inner in folders:
        files += _below(inner, scan, above | {place})
    return sorted(files, key=os.fsencode)


def _entries(folder: Path, scan: Scan) -> tuple[list[Path], list[Path]]:
    """The folders and the files directly in a folder, sorted; what is neither is noted in `scan`."""
    folders: list[Path] = []
    files: list[Path] = []
    for path in sorted(folder.iterdir(), key=os.fsencode):
        if path.name.startswith(".") or path.name.lower() in _SYSTEM:
            scan.hidden += 1
        elif path.is_dir():
            if is_picture_name(path):
                scan.broken.append((path, "a folder with the name of a picture"))
            else:
                folders.append(path)
        elif path.is_file():
            files.append(path)
        elif is_picture_name(path):
            scan.broken.append((path, "a link to nothing" if path.is_symlink() else "no file"))
        else:
            scan.hidden += 1
    return folders, files
