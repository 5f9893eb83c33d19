"""The type checker of the tests."""

from beartype import BeartypeConf, beartype

# As PEP 484 has it, an int may stand for a float.
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
