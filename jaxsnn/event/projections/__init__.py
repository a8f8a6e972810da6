"""What arrives at a population, and what it hands on."""
