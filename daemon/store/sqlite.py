"""sqlite-utils without pandas: it looks for it on import, which costs a second and 60 MB that nothing here uses."""

from __future__ import annotations

import sys

_pandas = sys.modules.get("pandas")
sys.modules["pandas"] = None  # type: ignore[assignment]
try:
    from sqlite_utils import Database, Migrations
finally:
    if _pandas is None:
        del sys.modules["pandas"]
    else:
        sys.modules["pandas"] = _pandas

__all__ = ["Database", "Migrations"]
