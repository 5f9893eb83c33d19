"""The idx format of MNIST and its kin (LeCun, "The MNIST database"): bytes behind a header of sizes."""

import gzip
from pathlib import Path

import numpy as np

_BYTES = 0x08


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array of an idx file, compressed by gzip or not.

    **Raises:** `FileNotFoundError`; `ValueError` if it is no idx file of bytes, or is cut off.
    """
    path = Path(path)
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path} is no idx file: it does not begin with two zeros")
    kind, axes = content[2], content[3]
    if kind != _BYTES:
        raise ValueError(f"{path} holds numbers of idx type {kind:#x}; only bytes (0x8) are read")
    header = 4 + 4 * axes
    if len(content) < header:
        raise ValueError(f"{path} is cut off within its header")
    shape = tuple(np.frombuffer(content[4:header], ">u4").astype(int).tolist())
    if len(content) != header + int(np.prod(shape)):
        raise ValueError(
            f"{path} is cut off: a header of sizes {shape} asks for {int(np.prod(shape))} bytes, and "
            f"{len(content) - header} are there"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
