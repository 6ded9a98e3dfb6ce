"""CT rendered from label maps, to learn and test on without patient data."""
