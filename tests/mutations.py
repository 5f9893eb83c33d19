"""Artifacts broken in every way that occurs to us, most with digests that fit the damage."""

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path


class Parts:
    """An artifact taken apart; `join` puts it together again, with right digests if asked for."""

    def __init__(self, path: Path):
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        self.raw = raw
        self.data_start = 8 + length
        self.header = json.loads(raw[8 : self.data_start])
        self.data = raw[self.data_start :]
        self.manifest = json.loads(self.header["__metadata__"]["manifest"])

    def join(self, header: dict, manifest: dict, *, digest: bool = True) -> bytes:
        header = copy.deepcopy(header)
        text = json.dumps(manifest)
        if "__metadata__" in header and isinstance(header["__metadata__"], dict):
            header["__metadata__"]["manifest"] = text
            if digest:
                header["__metadata__"]["manifest_sha256"] = hashlib.sha256(
                    text.encode()
                ).hexdigest()
        return self.with_header(json.dumps(header).encode())

    def with_header(self, text: bytes) -> bytes:
        text += b" " * (-(8 + len(text)) % 64)
        return len(text).to_bytes(8, "little") + text + self.data


WRONG_VALUES = [
    None,
    True,
    -1,
    0,
    3.5,
    2**31,
    2**63,
    2**64,
    -(2**63),
    1e308,
    "",
    "x",
    "F64",
    [],
    [1],
    [-1],
    [2**40, 2**40],
    {},
    {"a": 1},
]


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values below a JSON value."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def changed(document: dict, path: tuple, action) -> dict:
    """A copy in which `action(parent, key)` has been done at the path."""
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    action(parent, path[-1])
    return document


def mutations(path: Path, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of broken artifacts, the same ones each time."""
    rng = random.Random(seed)
    parts = Parts(path)
    raw, start = parts.raw, parts.data_start

    ends = [e["data_offsets"][1] for n, e in parts.header.items() if n != "__metadata__"]
    lengths = {0, 1, 7, 8, 9, 63, 64, start - 1, start, len(raw) - 1, *(start + e for e in ends)}
    lengths |= {rng.randrange(len(raw)) for _ in range(150)}
    for length in sorted(lengths - {len(raw)}):
        yield f"truncated to {length}", raw[:length]
    yield "one byte longer", raw + b"\0"

    for claim in (0, 1, start - 9, start - 7, start + 56, len(raw), 10**8, 2**31, 2**63, 2**64 - 1):
        yield f"header length {claim}", claim.to_bytes(8, "little") + raw[8:]

    for _ in range(250):
        place = rng.choice([rng.randrange(start), rng.randrange(len(raw))])
        flipped = bytearray(raw)
        flipped[place] ^= 1 << rng.randrange(8)
        yield f"bit flipped at {place}", bytes(flipped)

    texts = [
        b"",
        b"{",
        b"[]",
        b"[" * 5000,
        b'{"a":' * 3000,
        b"null",
        b'{"a":1,"a":2}',
        b'"\xff\xfe"',
    ]
    texts += [b'{"__metadata__":{}}', b"{}", b'{"__metadata__":[]}', b'{"a":1e999}', b"{\x00}"]
    for text in texts:
        yield f"header {text[:20]!r}", parts.with_header(text)

    tensor_names = [n for n in parts.header if n != "__metadata__"]
    for _ in range(200):
        name = rng.choice(tensor_names)
        field = rng.choice(["dtype", "shape", "data_offsets"])
        wrong = rng.choice(WRONG_VALUES)
        header = changed(parts.header, (name, field), lambda p, k, w=wrong: p.__setitem__(k, w))
        yield f"{name}.{field} = {wrong!r}", parts.join(header, parts.manifest)
    for _ in range(60):
        name, index = rng.choice(tensor_names), rng.randrange(2)
        shift = rng.choice([-64, -1, 1, 4, 64, 2**40])
        header = changed(
            parts.header,
            (name, "data_offsets", index),
            lambda p, k, s=shift: p.__setitem__(k, p[k] + s),
        )
        yield f"{name}.data_offsets[{index}] {shift:+}", parts.join(header, parts.manifest)
    for _ in range(40):
        name = rng.choice(tensor_names)
        header = {n: e for n, e in parts.header.items() if n != name}
        yield f"without {name}", parts.join(header, parts.manifest)

    for key in ("format", "format_version", "manifest", "manifest_sha256"):
        lacking = changed(parts.header, ("__metadata__", key), lambda p, k: p.pop(k))
        yield f"without {key}", parts.with_header(json.dumps(lacking).encode())
        for wrong in ("", "2", 7):
            header = changed(
                parts.header, ("__metadata__", key), lambda p, k, w=wrong: p.__setitem__(k, w)
            )
            yield f"{key} = {wrong!r}", parts.with_header(json.dumps(header).encode())

    manifest_places = list(places(parts.manifest))
    contract = [p for p in manifest_places if p[0] not in ("model", "producer", "tensors")]
    for _ in range(450):
        place, wrong = rng.choice(contract), rng.choice(WRONG_VALUES)
        manifest = changed(parts.manifest, place, lambda p, k, w=wrong: p.__setitem__(k, w))
        yield f"{place} = {wrong!r}", parts.join(parts.header, manifest)
    for _ in range(250):
        place = rng.choice(contract)
        manifest = changed(parts.manifest, place, lambda p, k: p.pop(k))
        yield f"without {place}", parts.join(parts.header, manifest)
    for name in rng.sample(sorted(parts.manifest["tensors"]), 20):
        manifest = changed(
            parts.manifest, ("tensors", name), lambda p, k: p.__setitem__(k, "0" * 64)
        )
        yield f"digest of {name}", parts.join(parts.header, manifest)
    yield (
        "manifest without its digest",
        parts.join(parts.header, {**parts.manifest, "name": "other"}, digest=False),
    )
