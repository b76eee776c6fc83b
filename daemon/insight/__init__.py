"""What a finished run tells: read from its file, the same for a live run's file and an analysed recording's."""
