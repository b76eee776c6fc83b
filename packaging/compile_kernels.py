"""Compiles every kernel into numba's cache: those of the engine, and those of the simulated instrument."""

from __future__ import annotations

from daemon.warmup import warm_all

if __name__ == "__main__":
    warm_all()
