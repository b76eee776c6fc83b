"""An emulated MethodSCRIPT potentiostat with a simulated cell: language, firmware, and the links to a host."""
