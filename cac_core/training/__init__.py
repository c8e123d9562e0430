"""Training of the networks: table, samples, batches, loop, calibration, export."""
