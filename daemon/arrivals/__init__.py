"""From a name in a drop folder to a frame on record: noticed, settled, read, registered."""
