"""Asyncio wrappers for front panels, stage controllers and interlocks: each file can be copied to a board by itself."""
