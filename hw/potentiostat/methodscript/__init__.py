"""PalmSens potentiostats that run MethodSCRIPT: scripts that bound themselves, and the session that runs them."""
