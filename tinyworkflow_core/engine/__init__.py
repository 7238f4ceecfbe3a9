"""The engine: workflow code and a history in, commands out. Pure: no I/O, no clock, no randomness, no environment."""
