"""One thread for tiny tensors."""

from __future__ import annotations

import os

# Waiting threads cost tiny models eight times the work on a busy machine. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
