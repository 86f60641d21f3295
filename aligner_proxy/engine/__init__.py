"""The aligner: its model, what schedules and decodes it, its server and its clients."""
