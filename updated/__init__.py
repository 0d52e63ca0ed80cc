"""`updated`: an update agent for devices with A/B slots, wire-compatible with RAUC."""

__version__ = "0.1.0"
