"""What the papers of the compared systems show first, on small data."""
