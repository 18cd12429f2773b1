"""What every operation of a traced graph does to exponents."""
