"""The Flower app at the repository root: simulations of a federation of editors."""
