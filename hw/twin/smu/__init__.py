"""An emulated source-measure unit (Keithley 2400 series) with a cell of the twin on it."""
