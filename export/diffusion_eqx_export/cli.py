"""The command `diffusion-eqx-export`."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Export a sampler of a model file as one artifact for diffusion-sampler."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model file written by `diffusion-eqx train`."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    """The artifact to write, e.g. sampler.safetensors."""
    sampler: str = "ddim"
    """How to sample: a name that `diffusion-eqx samplers` lists."""
    grid: str | None = None
    """At which times: a name that `diffusion-eqx samplers` lists; by default the sampler's own."""
    steps: int = 50
    """Default number of steps; can be chosen at run time, like the next five."""
    guidance_scale: float = 2.0
    """Default scale of guidance, for class-conditional models."""
    eta: float | None = None
    """Default share of fresh noise, for samplers that have it."""
    temperature: float | None = None
    """Default scale of the noise, for samplers that have it."""
    churn: float | None = None
    """Default churn, for `edm`."""
    snr: float | None = None
    """Default of the corrector's reach, for `predictor_corrector`."""
    guidance: Literal["cfg", "cfg++", "apg", "none"] = "cfg"
    """How steps are guided; without guidance, a step costs half."""
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


def _sampler(options: Sampler) -> None:
    from diffusion_eqx.models import load_model
    from diffusion_eqx_export.export import export_sampler

    given = {name: getattr(options, name) for name in ("eta", "temperature", "churn", "snr")}
    export_sampler(
        load_model(options.model),
        options.out,
        sampler=options.sampler,
        grid=options.grid,
        steps=options.steps,
        guidance_scale=None if options.guidance == "none" else options.guidance_scale,
        guidance="cfg" if options.guidance == "none" else options.guidance,
        brownian=options.brownian,
        platforms=options.platforms,
        batch_sizes=options.batch_sizes,
        **{name: value for name, value in given.items() if value is not None},
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
    from diffusion_eqx_export.artifact import read_artifact
    from diffusion_eqx_export.verify import verify

    verdict = verify(read_artifact(options.artifact))
    word = "passed" if verdict.passed else "FAILED"
    print(f"{word}: noise differs by {verdict.noise:.1e}, images by {verdict.image:.1e} at most")
    if not verdict.passed:
        sys.exit(8)


_COMMANDS = {Sampler: _sampler, Info: _info, Verify: _verify}


def main(args: list[str] | None = None) -> None:
    """Run one command. Exits with 2 for wrong input, 8 if `verify` fails."""
    # Equinox's run-time checks call back into Python, which an exported program cannot.
    os.environ.setdefault("EQX_ON_ERROR", "off")
    options = tyro.cli(
        Annotated[Sampler, tyro.conf.subcommand("sampler")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Verify, tyro.conf.subcommand("verify")],
        prog="diffusion-eqx-export",
        description="Export samplers of diffusion_eqx for the native program diffusion-sampler.",
        args=args,
    )
    try:
        _COMMANDS[type(options)](options)
    except (ValueError, OSError) as error:
        print(f"diffusion-eqx-export: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
