"""What the checks measure with: a ranking's cost, a gate's places, a shop, a web service."""
