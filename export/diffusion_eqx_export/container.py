"""The container of FORMAT.md, section 1: safetensors with every tensor at a multiple of 64 bytes.

The safetensors library orders tensors itself and aligns to eight bytes, so the file is laid out here;
it is read back by that library.
"""

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np

FORMAT = "diffusion_eqx.sampler"
FORMAT_VERSION = "1"

ALIGNMENT = 64
# Readers refuse a longer header.
MAX_HEADER = 1 << 24

_DTYPE_NAMES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.float64): "F64",
    np.dtype(np.int32): "I32",
    np.dtype(np.int64): "I64",
    np.dtype(np.uint32): "U32",
    np.dtype(np.uint8): "U8",
    np.dtype(np.bool_): "BOOL",
}


def dtype_name(dtype: np.dtype) -> str:
    """safetensors' name of a dtype.

    **Raises:** `ValueError` if the format has none.
    """
    name = _DTYPE_NAMES.get(np.dtype(dtype))
    if name is None:
        raise ValueError(
            f"arrays of {dtype} cannot be stored in an artifact; it holds {sorted(_DTYPE_NAMES.values())}"
        )
    return name


def write_container(
    path: str | Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write tensors, in their order, and metadata; atomically. Names must not begin with `padding.`

    **Raises:** `ValueError` if they are so many that their list would be longer than the format allows.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    chunks: list[bytes] = []
    offset, paddings = 0, 0
    for name, tensor in tensors.items():
        chunk = np.ascontiguousarray(tensor).tobytes()
        header[name] = _entry(dtype_name(tensor.dtype), tensor.shape, offset, len(chunk))
        chunks.append(chunk)
        offset += len(chunk)
        padding = -offset % ALIGNMENT
        if padding:
            header[f"padding.{paddings}"] = _entry("U8", (padding,), offset, padding)
            paddings += 1
            chunks.append(bytes(padding))
            offset += padding
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"{len(tensors)} arrays make a header of {len(text)} bytes; an artifact's has at most "
            f"{MAX_HEADER}: stack the arrays of equal blocks"
        )

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.writelines(chunks)
    os.replace(partial, path)


def _entry(dtype: str, shape: tuple[int, ...], begin: int, length: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + length]}
