"""The long runs: collected by ``make soak`` only."""

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("integration", "unit/label_studio")]

collect_ignore_glob = [] if os.environ.get("OVAM_SOAK") else ["test_*.py"]
