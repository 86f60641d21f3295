"""One command from a base and a folder of data to an aligner that the gateway loads."""
