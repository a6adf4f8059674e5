"""The benchmark's plain MEMIT is the oracle here; it lives beside the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
