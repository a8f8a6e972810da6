"""Files of unknown origin: opened in one place, and read within limits of bytes, memory and time."""
