"""Events in HDF5 files: Prophesee, DSEC, event_utils, v2e, MVSEC, and the like."""

from evfi.events.formats.hdf5.container import is_hdf5
from evfi.events.formats.hdf5.source import open_hdf5

__all__ = ["is_hdf5", "open_hdf5"]
