"""What pseudo-log-likelihood and states without training are good for."""
