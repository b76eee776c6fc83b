"""Results on disk: one SQLite file a run, a catalogue over all of them, one writer, read-only readers, exports."""
