"""Networks as their papers describe them, one file each."""
