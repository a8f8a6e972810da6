"""The event engine: exact, event by event, in continuous time."""
