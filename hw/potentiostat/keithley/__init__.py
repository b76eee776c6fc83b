"""Keithley 2400-series source-measure units as potentiostats."""
