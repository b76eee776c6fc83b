"""The simulated instrument: electrode physics, optics, and the file through which they share one world."""
