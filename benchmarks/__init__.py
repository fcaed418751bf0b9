"""Speed, as ratios to the bare loop of the same client and server in the same run. `make bench`."""
