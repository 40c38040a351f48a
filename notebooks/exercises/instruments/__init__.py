"""What two of the checks measure with: the cost of a ranking, and the shop that sells."""
