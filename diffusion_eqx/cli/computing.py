"""What every command does before it computes."""


def prepare(cpu_devices: int = 0) -> None:
    """Use all cores, or as many devices as are asked for, and keep what is compiled.

    It loads jax, which takes half a second: what can be refused without it is refused before.

    - `cpu_devices`: 0 for one for each core, if nothing has been computed yet.

    **Raises:** as `use_all_cores`, if a number is given.
    """
    from diffusion_eqx.compile_cache import use_compile_cache
    from diffusion_eqx.samplers import use_all_cores

    # Whoever calls a command from Python may have computed something before.
    use_all_cores(cpu_devices or None, required=cpu_devices > 0)
    use_compile_cache()
