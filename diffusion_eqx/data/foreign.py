"""Whether an object is of another library, which is imported by whoever made the object, never here."""

import operator
import sys
from typing import Any


def is_of(source: Any, library: str, kind: str) -> bool:
    """Whether it is a `kind` of a library, such as `data.Dataset` of `tensorflow`."""
    module = sys.modules.get(library)
    return module is not None and isinstance(source, operator.attrgetter(kind)(module))
