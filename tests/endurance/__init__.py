"""What takes minutes and is asked for by name: `make fuzz`, `make stress`."""
