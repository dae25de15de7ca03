"""What ``edgeproxy init`` writes: package data, and the one reader of it (write.py)."""
