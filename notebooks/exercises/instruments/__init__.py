"""What three of the checks measure with: a ranking's cost, the shop that sells, a web service."""
