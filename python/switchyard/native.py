"""The compiled module, loaded beside the torch it was built with."""

from __future__ import annotations

import atexit
import logging

import torch  # first: the module's engine is this torch's libraries

from . import _native

__all__ = ["__version__", "_native"]

__version__: str = _native.__version__

if torch.__version__.split("+")[0] != _native.torch_version:
    raise ImportError(
        f"switchyard was built with torch {_native.torch_version}, and torch {torch.__version__} is installed: torch keeps no "
        f"binary interface between versions. Install torch=={_native.torch_version}, or build switchyard again with this one."
    )

# A logger's handlers decide where it goes; a notebook does not show what C++ writes to stderr.
_native.set_message_sink(logging.getLogger("switchyard").info)
atexit.register(_native.set_message_sink, None)
