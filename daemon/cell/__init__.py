"""The cell: experiment steps, the executor, safety limits, coulometry, and the one owner of the potentiostat."""
