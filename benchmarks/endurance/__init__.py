"""What a long queue and a long life cost. `make bench-endurance`."""
