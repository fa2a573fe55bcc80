"""detkit: train dense object detectors that do not get lazy."""

__version__ = "0.1.0"
