#!/usr/bin/env python3
"""The validation tokens of the loss curves: the first 8 batches of 16 windows that curve.py draws.

usage: validation.py DATA OUT      DATA from prepare.py; OUT: 128 windows of 256 ids and the one after them, 16 bits each
"""

import sys
from pathlib import Path

import numpy as np

WINDOW, NUM_WINDOWS = 256, 8 * 16

val = np.fromfile(Path(sys.argv[1]) / "val.bin", dtype="<u2")
starts = np.random.default_rng(0).permutation(np.arange(0, len(val) - WINDOW - 1, WINDOW))
np.stack([val[start : start + WINDOW + 1] for start in starts[:NUM_WINDOWS]]).tofile(sys.argv[2])
