"""What belongs to no single use case: resources and the sensors that watch every asset."""
