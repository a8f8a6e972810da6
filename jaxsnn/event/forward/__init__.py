"""The event engine forward in time: layers, recurrent groups, readouts."""
