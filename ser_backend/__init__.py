"""SER Studio's engine: self-evolved reward learning without any user interface."""

__version__ = "0.1.0"
