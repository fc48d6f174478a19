"""Each benchmark is a program: `python benchmarks/pipeline.py`, or `python -m benchmarks.pipeline`."""

import sys
from pathlib import Path

# What they share is found as it is by a program in its own folder.
sys.path.insert(0, str(Path(__file__).parent))
