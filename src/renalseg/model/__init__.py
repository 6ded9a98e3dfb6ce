"""The networks, their checkpoints and the machine they run on."""
