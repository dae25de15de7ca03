"""What rules have earned, and what the traffic suggests to change in them."""
