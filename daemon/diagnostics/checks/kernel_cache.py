"""Do compiled kernels survive a restart?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import kernels
from daemon.diagnostics.checks.base import Check, CheckResult


def kernel_cache_directory(environ: Mapping[str, str]) -> Path:
    """Where numba keeps compiled kernels: ``NUMBA_CACHE_DIR``, else beside the sources."""
    named = environ.get("NUMBA_CACHE_DIR")
    return Path(named) if named else Path(kernels.__file__).parent / "__pycache__"


class KernelCache(Check):
    """Whether the cache of compiled kernels can be written; without it each start compiles for up to a minute."""

    name = "kernel_cache"
    remedy = "Set NUMBA_CACHE_DIR to a directory that the service's user can write."

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def run(self) -> CheckResult:
        directory = kernel_cache_directory(self._environ)
        limit = "writable"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=directory, prefix=".selftest-"):
                return self.result("pass", str(directory), limit)
        except OSError as error:
            return self.result("warn", f"{error.strerror} ({directory})", limit)
