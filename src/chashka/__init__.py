"""chashka."""
