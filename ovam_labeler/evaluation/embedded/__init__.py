"""What the embedded model can do, on concepts and drawings that training never saw, beside what it should."""
