"""Asking before clients do: warm-ups, what is most wanted, refreshing ahead."""
