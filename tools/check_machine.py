"""Says in one line what a machine lacks before anything is installed (needs nothing but Python itself)."""

import ctypes.util
import sys

MINIMUM, BELOW = (3, 11), (3, 14)

if not MINIMUM <= sys.version_info[:2] < BELOW:
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"zantara: Python {found} at {sys.executable}: 3.11, 3.12 or 3.13 is needed; name one, as in: make run PYTHON=python3.11"
    )
if sys.platform.startswith("linux") and ctypes.util.find_library("gomp") is None:
    sys.exit("zantara: the library libgomp1 is missing (LightFM needs it); install it, as in: apt-get install libgomp1")
