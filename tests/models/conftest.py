"""The scripts of models/ import each other as `python models/x.py` finds them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
