"""Version of the core. It is part of the identity of every score: raise it when scores change."""

__version__ = "0.1.0"
