"""Self-test checks: one class a file. Each says what it measured, against which limit, and what to do."""
