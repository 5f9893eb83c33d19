"""The command `diffusion-eqx-export`."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion_eqx.cli import explained, read_numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Export a sampler of a model file as one artifact for diffusion-sampler.

    Every number of the sampler and the guidance is an option by its name, such as --eta 0.5 or
    --guidance-scale 3. It becomes a default, which diffusion-sampler can be told otherwise.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model file written by `diffusion-eqx train`."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """The artifact to write, e.g. sampler.safetensors."""
    sampler: str | None = None
    """A name that `diffusion-eqx samplers` lists; by default the one that the model recommends."""
    grid: str | None = None
    """A name that `diffusion-eqx samplers` lists; by default the sampler's own."""
    steps: int | None = None
    """Default number of steps, which can be chosen at run time too."""
    guidance: str | None = None
    """cfg, cfg++ or apg; cfg if --guidance-scale is given. Without, a step costs half, and no guidance can
    be chosen later."""
    brownian: bool = False
    """Read noise off one Brownian path, so that an image keeps its shape when steps change."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda")
    """Platforms to make programs for."""
    batch_sizes: tuple[int, ...] = (1, 8, 64)
    """Numbers of images to make programs for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info:
    """Show what an artifact holds."""

    artifact: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ARTIFACT")]
    """A file written by `diffusion-eqx-export sampler`."""
    json: bool = False
    """Print the whole manifest as JSON."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify:
    """Run an artifact's programs and compare with the images that Python drew when exporting."""

    artifact: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ARTIFACT")]
    """A file written by `diffusion-eqx-export sampler`."""


def _sampler(options: Sampler, numbers: dict[str, float]) -> None:
    from diffusion_eqx.compile_cache import use_compile_cache
    from diffusion_eqx.models import load_model, read_record
    from diffusion_eqx.samplers import BrownianNoise
    from diffusion_eqx_export.export import export_sampler
    from diffusion_eqx_export.settings import cpu_device, pinned

    use_compile_cache()
    guidance = options.guidance
    if guidance is None and "guidance_scale" in numbers:
        guidance = "cfg"  # as in `diffusion-eqx sample`
    cpu_device()  # without one nothing can be exported, and the model is large
    with pinned():  # a file is read in its own precision, whatever JAX_ENABLE_X64 says
        model = load_model(options.model)
    export_sampler(
        model,
        options.out,
        sampler=options.sampler,
        grid=options.grid,
        steps=options.steps,
        guidance=guidance,
        noise=BrownianNoise() if options.brownian else None,
        platforms=options.platforms,
        batch_sizes=options.batch_sizes,
        record=read_record(options.model),
        **numbers,
    )
    size = options.out.stat().st_size / 2**20
    print(f"wrote {options.out} ({size:.1f} MiB)", file=sys.stderr)


def _info(options: Info) -> None:
    from rich.console import Console
    from rich.table import Table

    from diffusion_eqx_export.artifact import read_artifact

    manifest, tensors = read_artifact(options.artifact)
    if options.json:
        print(json.dumps(manifest, indent=1))
        return
    table = Table(show_header=False, title=str(options.artifact))
    model = manifest["model"]
    table.add_row("name", manifest["name"])
    table.add_row("model", f"{model['class']}, {model['parameters']:,} parameters")
    table.add_row("weights", "moving average (EMA)" if model["ema"] else "not averaged")
    table.add_row("sampler", manifest["sample"]["sampler"])
    table.add_row("image", "x".join(map(str, manifest["sample"]["shape"])))
    for name, p in manifest["parameters"].items():
        table.add_row(name, f"{p['default']} ({p['min']} … {p['max']}): {p['about']}")
    if manifest["labels"] is not None:
        table.add_row("labels", ", ".join(manifest["labels"]["names"]))
    buckets = {(e["platform"], e["batch"]) for e in manifest["programs"]}
    for platform in sorted({p for p, _ in buckets}):
        sizes = sorted(batch for p, batch in buckets if p == platform)
        table.add_row(f"batches on {platform}", ", ".join(map(str, sizes)))
    for part in ("weights", "programs"):
        size = sum(t.nbytes for name, t in tensors.items() if name.startswith(part + "/"))
        table.add_row(f"size of {part}", f"{size:,} bytes")
    table.add_row("made with", ", ".join(f"{k} {v}" for k, v in manifest["producer"].items()))
    Console().print(table)


def _verify(options: Verify) -> None:
    from diffusion_eqx.compile_cache import use_compile_cache
    from diffusion_eqx_export.artifact import read_artifact
    from diffusion_eqx_export.verification import verify

    use_compile_cache()
    verdict = verify(read_artifact(options.artifact))
    word = "passed" if verdict.passed else "FAILED"
    print(f"{word}: noise differs by {verdict.noise:.1e}, images by {verdict.image:.1e} at most")
    if not verdict.passed:
        sys.exit(8)


_COMMANDS = {Info: _info, Verify: _verify}


def main(args: list[str] | None = None) -> None:
    """Run one command. Exits with 2 for wrong input, 8 if `verify` fails."""
    # Equinox's run-time checks call back into Python, which an exported program cannot.
    os.environ.setdefault("EQX_ON_ERROR", "off")
    try:
        options, others = tyro.cli(
            Annotated[Sampler, tyro.conf.subcommand("sampler")]
            | Annotated[Info, tyro.conf.subcommand("info")]
            | Annotated[Verify, tyro.conf.subcommand("verify")],
            prog="diffusion-eqx-export",
            description="Export samplers of diffusion_eqx for the native program diffusion-sampler.",
            args=args,
            return_unknown_args=True,
        )
        if isinstance(options, Sampler):
            _sampler(options, read_numbers(others))
        elif others:
            raise ValueError(f"{others[0]!r} is no option here; see --help")
        else:
            _COMMANDS[type(options)](options)
    except (ValueError, OSError) as error:
        print(f"diffusion-eqx-export: {explained(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
