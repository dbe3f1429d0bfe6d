"""What threads hold while they import."""

from __future__ import annotations

import threading

__all__ = ["IMPORTING"]

#: Held while scipy, or numba, which imports it, is imported: two threads that import parts of a
#: package at once may find it half made.
IMPORTING = threading.Lock()
